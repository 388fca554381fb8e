"""How a base model is quantized: by bitsandbytes while it loads, as it is stored, or afterwards by this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices, gpu_memory, stored, weights
from lmsys_ray.members.llama.linear import reached_by
from lmsys_ray.members.llama.sources import trained_dtype


@dataclass(frozen=True)
class Choice:
    """What the settings mean for one model on one device."""

    quantization: devices.Quantization
    packs_matter: bool = False
    """Whether what a row gets depends on its micro-batch by more than rounding, so that micro-batches must not vary."""
    note: str | None = None
    """What the user should know of it."""


def choose(config: PreTrainedConfig, directory: Path, settings: LlamaSettings) -> Choice:
    """Returns what `settings` mean for the model of this config, whose files lie in `directory`, on this device.

    `config` is changed where it says that the weights are stored quantized (see `stored.prepare`).

    Raises `UsageError` for a quantization that the model, the device or the installed packages do not allow, and for a
    model too large for its GPUs.
    """
    described = stored.description(config)
    if described is None:
        choice = _choose_plain(config, settings)
    else:
        if settings.quantization not in ("auto", stored.setting(described)):
            raise UsageError(f"quantization: {settings.model} is stored quantized already; set quantization to auto")
        stored.prepare(config, directory, settings)
        needed = stored.needed_bytes(stored.tensors(directory, settings.model), settings.layers)
        gpu_memory.check_room(needed, settings.gpus_per_replica, settings.model)
        choice = Choice("stored", stored.packs_matter(described))
    if choice.packs_matter and settings.quantization == "auto" and settings.batch_tokens != "auto":
        raise UsageError(
            f"batch_tokens: {settings.batch_tokens} with quantization auto, which for {settings.model} means numbers "
            "that depend on micro-batches here; set batch_tokens to auto, or, for int8, quantization to int8 as well"
        )
    return choice


def _choose_plain(config: PreTrainedConfig, settings: LlamaSettings) -> Choice:
    """Returns what the settings mean for a model that is stored in 16 or 32 bits."""
    asked, memory = settings.quantization, gpu_memory.total(settings.gpus_per_replica)
    if asked in ("none", "auto") and not memory:
        return Choice("none")
    width = devices.choose_dtype(settings.dtype, trained_dtype(settings)).itemsize
    counted = weights.count(config)
    quantization = devices.choose_quantization(asked, counted, memory, width)
    if quantization in ("int8_dynamic", "fp8"):
        counted = weights.count(config, reached_by(quantization))
    per_weight = devices.BYTES_PER_WEIGHT.get(quantization, width)
    gpu_memory.check_room(counted.bytes(per_weight, width), settings.gpus_per_replica, settings.model)
    note = None if quantization == "none" else weights.check_share(counted, quantization, settings.model)
    return Choice(quantization, quantization == "int8", note)


def loading_arguments(quantization: devices.Quantization, settings: LlamaSettings) -> dict[str, Any]:
    """Returns how `from_pretrained` is to quantize; empty where it loads the weights as they are stored."""
    if quantization not in ("int8", "nf4"):
        return {}
    head = [weights.HEAD]  # bitsandbytes would quantize it too
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=head)}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
        llm_int8_skip_modules=head,
    )
    return {"quantization_config": four_bits}


def as_loaded(choice: Choice, model: PreTrainedModel, settings: LlamaSettings) -> Choice:
    """Returns what became of a choice, and makes the head of `model` a plain layer of float32.

    Where the device does not compute in what is stored, transformers may undo it: then the model is as any other.
    """
    is_stored = choice.quantization == "stored"
    if is_stored and stored.is_quantized(model):
        stored.try_once(model, settings.model)
    elif is_stored:
        width = str(model.dtype).removeprefix("torch.")
        choice = Choice("none", note=f"{settings.model} is stored quantized, and loaded as {width} on this device")
    embedding = getattr(model, model.base_model_prefix).get_input_embeddings()
    model.score = stored.plain_head(cast(torch.nn.Module, model.score), next(embedding.parameters()))
    return choice
