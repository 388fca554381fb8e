"""From the settings to a checked classifier: base weights, quantization, adapter, head."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama import base_model, checks, devices, gpu_memory, packing
from lmsys_ray.members.llama import quantization as quantizing
from lmsys_ray.members.llama.adapters import adapter_rows, with_adapter
from lmsys_ray.members.llama.config_checks import is_causal, long_beyond
from lmsys_ray.members.llama.decoder import PackedDecoder, TransformersDecoder, fits
from lmsys_ray.members.llama.linear import as_it_is, form_for
from lmsys_ray.members.llama.quiet import quiet_libraries
from lmsys_ray.members.llama.self_check import Expected, expected
from lmsys_ray.members.llama.sources import model_directory, pools_last_token, read_tokenizer, trained_dtype


@dataclass(frozen=True)
class Classifier:
    """A backbone that gives the hidden states of the tokens that the head reads, and a float32 head to 3 logits."""

    backbone: PackedDecoder | TransformersDecoder
    head: torch.nn.Module
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    pad_id: int
    """What padded slots hold."""
    pooling_pad: int | None
    """The token that the head never reads where a row ends in it; none: it reads the last one, whatever that is."""
    causal: bool
    """Whether no token sees what follows it."""
    long_beyond: int
    """Tokens beyond which all of a row's rotary angles are others (longrope)."""
    device: torch.device
    """Where the input goes; the head may lie on another GPU."""
    embedded: int
    """How many ids have an embedding."""
    expected: Expected
    """What transformers computes of a few rows."""
    packs_matter: bool
    """Whether what a row gets depends on its micro-batch by more than rounding."""
    notes: tuple[str, ...]
    """What the user should know of how it was loaded."""
    plain: bool = False
    """Whether linear layers are PyTorch's own."""

    @property
    def many_at_once(self) -> bool:
        """Whether several threads may each run a micro-batch, and rows may share what they have in common."""
        return isinstance(self.backbone, PackedDecoder) and self.device.type != "cuda"


@dataclass(frozen=True)
class LoadedModel:
    """A checked transformers classifier, its adapter merged unless bitsandbytes or the like quantized the weights."""

    model: PreTrainedModel
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    pad_id: int
    quantization: devices.Quantization
    """What is still to be done to the linear layers, where it is one of this package's own; else what was done."""
    packs_matter: bool
    """Whether what a row gets depends on its micro-batch by more than rounding."""
    last_token: bool
    """Whether it was trained to be read at the last token, even where that is the pad token."""
    notes: tuple[str, ...]
    """What the user should know of how it was loaded."""


def load_classifier(settings: LlamaSettings, padding: packing.Padding | None = None, plain: bool = False) -> Classifier:
    """Loads the model that `settings` describe, in the form that is fastest on this device for rows padded so.

    `padding` is that of the settings where it is not given. With `plain` its linear layers stay PyTorch's own, for
    models that look into them.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    padding = padding or settings.padding
    gpu_memory.keep_to_share(settings.gpus_per_replica)
    loaded = load_model(settings)
    backbone: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    config: Any = loaded.model.config.get_text_config()
    quantizes = loaded.quantization in ("int8_dynamic", "fp8")
    form = as_it_is if plain and not quantizes else form_for(loaded.quantization)
    rounds = quantizes or loaded.quantization in ("int8", "stored")
    wanted = expected(loaded.model, settings.model, settings.max_length, form if quantizes else None, rounds)
    embedding = next(backbone.get_input_embeddings().parameters())
    device, embedded = embedding.device, len(embedding)
    # Libraries may leave a quantized layer its class and change what it does.
    taken_over = padding == "none" and loaded.quantization != "stored" and fits(backbone)
    decoder = PackedDecoder(backbone, form) if taken_over else TransformersDecoder(backbone, form)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # gives back what held the weights in their first form
    return Classifier(
        decoder,
        head=cast(torch.nn.Module, loaded.model.score),
        columns=loaded.columns,
        pad_id=loaded.pad_id,
        pooling_pad=None if loaded.last_token else config.pad_token_id,
        causal=is_causal(config),
        long_beyond=long_beyond(config),
        device=device,
        embedded=embedded,
        expected=wanted,
        packs_matter=loaded.packs_matter,
        notes=loaded.notes,
        plain=plain,
    )


def load_model(settings: LlamaSettings) -> LoadedModel:
    """Loads the model that `settings` describe as transformers has it, for inference.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    with quiet_libraries(), base_model.in_memory(settings):
        directory = model_directory(settings.model)
        config = base_model.read_config(directory, settings)
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        brought = adapter_rows(settings.adapter) if settings.adapter is not None else None
        checks.check_tokenizer(read.tokenizer, read.pad_id, config.get_text_config(), settings.model, brought)
        columns = checks.class_columns(config.id2label or {}, settings.model, settings.labels)
        choice = quantizing.choose(config, directory, settings)
        arguments = quantizing.loading_arguments(choice.quantization, settings)
        model, info = base_model.load_base(directory, config, arguments, settings)
        checks.check_base(info, settings.model, settings.adapter is None, settings.layers)
        gpu_memory.check_placed(model, settings.model)
        choice = quantizing.as_loaded(choice, model, settings)
        if settings.adapter is None:
            checks.check_head(model, settings.model)
        else:
            head_found = checks.HEAD not in info["missing_keys"]
            merge = choice.quantization not in ("stored", "int8", "nf4")
            model = with_adapter(model, settings, settings.adapter, head_found, merge=merge)
        checks.check_finite(model, settings.model)
    model.eval()
    note = devices.other_dtype(model.dtype, trained_dtype(settings))
    return LoadedModel(
        model,
        columns,
        read.pad_id if read.pad_id is not None else 0,
        choice.quantization,
        choice.packs_matter,
        last_token=pools_last_token(settings.adapter),
        notes=tuple(note for note in (choice.note, note and f"adapter: {settings.adapter} was {note}") if note),
    )
