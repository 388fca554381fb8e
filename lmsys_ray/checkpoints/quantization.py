"""How a base model is quantized: by bitsandbytes while it loads, as it is stored, or afterwards by this package."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from lmsys_ray.checkpoints import stored
from lmsys_ray.checkpoints.base_model import Checkpoint
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import trained_dtype
from lmsys_ray.checkpoints.weight_files import tensors
from lmsys_ray.engine import devices, gpu_memory
from lmsys_ray.engine import weight_counts as weights
from lmsys_ray.engine.linear.forms import accepts_sizes
from lmsys_ray.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """The quantization that the settings mean for one model on one device."""

    quantization: devices.Quantization
    depends_on_batch: bool = False
    """Whether scores depend on the micro-batch by more than rounding, so that micro-batches must not vary."""
    note: str | None = None
    """What the user should know about it."""


def choose(checkpoint: Checkpoint, settings: ModelSettings) -> Choice:
    """Returns the quantization that `settings` mean for a model on this device.

    Its config is changed where the weights are stored quantized (see `stored.prepare`). Raises `UsageError` for a
    quantization that the model, the device or the installed packages do not allow, and for a model too large for its
    GPUs.
    """
    config, directory = checkpoint.config, checkpoint.directory
    if checkpoint.encoder:
        return _choose_encoder(config, settings)
    described = stored.description(config)
    if described is None:
        choice = _choose_plain(config, settings)
    else:
        if settings.quantization not in ("auto", stored.setting(described)):
            raise UsageError(f"quantization: {settings.model} is stored quantized already; set quantization to auto")
        stored.prepare(config, directory, settings)
        needed = stored.needed_bytes(tensors(directory, settings.model), settings.layers)
        gpu_memory.check_room(needed, settings.gpus_per_replica, settings.model)
        choice = Choice("stored", stored.depends_on_batch(described))
    if choice.depends_on_batch and settings.quantization == "auto" and settings.batch_tokens != "auto":
        raise UsageError(
            f"batch_tokens: {settings.batch_tokens} with quantization auto, which for {settings.model} means numbers "
            "that depend on micro-batches here; set batch_tokens to auto, or, for int8, quantization to int8 as well"
        )
    return choice


def _choose_encoder(config: PreTrainedConfig, settings: ModelSettings) -> Choice:
    """Encoders are small, and have no form with fewer bits here."""
    if settings.quantization not in ("auto", "none") or stored.description(config):
        raise UsageError(
            f"quantization: {settings.model} is an encoder, which is computed in 16 or 32 bits; set quantization to "
            "none, and name a checkpoint that is not stored quantized"
        )
    return Choice("none")


def _choose_plain(config: PreTrainedConfig, settings: ModelSettings) -> Choice:
    """Returns the quantization of a model that is stored in 16 or 32 bits."""
    asked, memory = settings.quantization, gpu_memory.total(settings.gpus_per_replica)
    if asked in ("none", "auto") and not memory:
        return Choice("none")
    width = devices.choose_dtype(settings.dtype, trained_dtype(settings)).itemsize
    counted = weights.count(config)
    quantization = devices.choose_quantization(asked, counted, memory, width)
    if quantization in ("int8_dynamic", "fp8"):
        counted = weights.count(config, accepts_sizes(quantization))
    per_weight = devices.BYTES_PER_WEIGHT.get(quantization, width)
    gpu_memory.check_room(counted.bytes(per_weight, width), settings.gpus_per_replica, settings.model)
    note = None if quantization == "none" else weights.check_share(counted, quantization, settings.model)
    return Choice(quantization, quantization == "int8", note)


def loading_arguments(quantization: devices.Quantization, settings: ModelSettings) -> dict[str, Any]:
    """Returns the arguments by which `from_pretrained` quantizes; empty where it loads weights as they are stored."""
    if quantization not in ("int8", "nf4"):
        return {}
    head = [weights.HEAD]  # bitsandbytes would quantize it too
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=head)}
    return {"quantization_config": nf4_config(devices.choose_dtype(settings.dtype, trained_dtype(settings)), head)}


def nf4_config(compute: torch.dtype, plain: list[str]) -> BitsAndBytesConfig:
    """Returns bitsandbytes' 4-bit quantization whose products are in `compute`; the modules `plain` keep their type."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=plain,
    )


def as_loaded(choice: Choice, model: PreTrainedModel, settings: ModelSettings) -> Choice:
    """Returns the choice as it turned out, and replaces the head of `model` by a plain float32 layer.

    Where the device does not compute in the stored form, transformers may dequantize it while loading.
    """
    _multiply_in_own_type(model)
    is_stored = choice.quantization == "stored"
    if is_stored and stored.is_quantized(model):
        stored.try_once(model, settings.model)
    elif is_stored:
        width = str(model.dtype).removeprefix("torch.")
        choice = Choice("none", note=f"{settings.model} is stored quantized, and loaded as {width} on this device")
    embedding = getattr(model, model.base_model_prefix).get_input_embeddings()
    model.score = stored.plain_head(cast(torch.nn.Module, model.score), next(embedding.parameters()))
    return choice


def _multiply_in_own_type(model: PreTrainedModel) -> None:
    """Lets 4-bit layers of bitsandbytes multiply in the type of their inputs.

    On a CPU with AVX-512 BF16 they would rearrange their weights in a first call and multiply in bfloat16, whatever
    type was asked for; with more than a few hundred tokens that takes longer, too (docs/lab/quantized.md).
    """
    if not getattr(model, "is_loaded_in_4bit", False):
        return
    from bitsandbytes.nn.modules import Linear4bit  # takes a second to load

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
