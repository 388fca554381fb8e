"""From the settings to a checked classifier: base weights, quantization, adapter, head."""

from dataclasses import dataclass
from typing import cast

import torch
from transformers import PreTrainedModel

from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama import attention, base_model, checks, devices, gpu_memory
from lmsys_ray.members.llama import quantization as quantizing
from lmsys_ray.members.llama.adapters import with_adapter
from lmsys_ray.members.llama.decoder import PackedDecoder, TransformersDecoder, fits
from lmsys_ray.members.llama.linear import form_for
from lmsys_ray.members.llama.quiet import quiet_libraries
from lmsys_ray.members.llama.sources import load_tokenizer, model_directory, pad_token_id


@dataclass(frozen=True)
class Classifier:
    """A backbone that gives the hidden state of each row's last token, and a float32 head from it to 3 logits."""

    backbone: PackedDecoder | TransformersDecoder
    head: torch.nn.Module
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    pad_id: int
    device: torch.device
    """Where the input goes; the head may lie on another GPU."""
    packs_matter: bool = False
    """Whether what a row gets depends on its micro-batch by more than rounding."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was loaded."""


@dataclass(frozen=True)
class LoadedModel:
    """A checked transformers classifier, its adapter merged unless bitsandbytes or the like quantized the weights."""

    model: PreTrainedModel
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    pad_id: int
    quantization: devices.Quantization
    """What is still to be done to the linear layers, where it is one of this package's own; else what was done."""
    packs_matter: bool = False
    """Whether what a row gets depends on its micro-batch by more than rounding."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was loaded."""


def load_classifier(settings: LlamaSettings) -> Classifier:
    """Loads the model that `settings` describe, in the form that is fastest on this device.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    gpu_memory.keep_to_share(settings.gpus_per_replica)
    loaded = load_model(settings)
    backbone: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    device = next(backbone.get_input_embeddings().parameters()).device
    form = form_for(loaded.quantization)
    packed = settings.padding == "none"
    chosen = loaded.model.config._attn_implementation
    wanted = attention.implementation(packed, chosen, device, loaded.model.dtype)
    if wanted != chosen:
        loaded.model.set_attn_implementation(wanted)
    # Libraries may leave a quantized layer its class and change what it does.
    taken_over = packed and loaded.quantization != "stored" and fits(backbone)
    decoder = PackedDecoder(backbone, form) if taken_over else TransformersDecoder(backbone, form)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # gives back what held the weights in their first form
    return Classifier(
        decoder,
        head=cast(torch.nn.Module, loaded.model.score),
        columns=loaded.columns,
        pad_id=loaded.pad_id,
        device=device,
        packs_matter=loaded.packs_matter,
        notes=loaded.notes,
    )


def load_model(settings: LlamaSettings) -> LoadedModel:
    """Loads the model that `settings` describe as transformers has it, for inference.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    with quiet_libraries():
        directory = model_directory(settings.model)
        config = base_model.read_config(directory, settings)
        tokenizer = load_tokenizer(settings.model)
        tokenizer_pad = pad_token_id(directory, tokenizer)
        checks.check_tokenizer(tokenizer, tokenizer_pad, config.get_text_config(), settings.model)
        columns = checks.class_columns(config.id2label or {}, settings.model)
        choice = quantizing.choose(config, directory, settings)
        arguments = quantizing.loading_arguments(choice.quantization, settings)
        model, info = base_model.load_base(directory, config, arguments, settings)
        checks.check_base(info, settings.model, settings.adapter is None, settings.layers)
        gpu_memory.check_placed(model, settings.model)
        choice = quantizing.as_loaded(choice, model, settings)
        if settings.adapter is not None:
            head_found = checks.HEAD not in info["missing_keys"]
            merge = choice.quantization not in ("stored", "int8", "nf4")
            model = with_adapter(model, settings, settings.adapter, head_found, merge=merge)
        checks.check_finite(model, settings.model)
    model.eval()
    pad_id = tokenizer_pad if tokenizer_pad is not None else 0
    notes = () if choice.note is None else (choice.note,)
    return LoadedModel(model, columns, pad_id, choice.quantization, choice.packs_matter, notes)
