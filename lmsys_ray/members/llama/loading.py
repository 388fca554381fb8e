"""From the settings to a checked classifier: base weights, quantization, adapter, head."""

from dataclasses import dataclass
from typing import cast

import torch
from transformers import PreTrainedModel

from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama import attention, base_model, checks, devices
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


@dataclass(frozen=True)
class LoadedModel:
    """A checked transformers classifier, its adapter merged unless bitsandbytes or the like quantized the weights."""

    model: PreTrainedModel
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    pad_id: int
    quantization: devices.Quantization
    """What is still to be done to the linear layers, where it is one of this package's own; else what was done."""


def load_classifier(settings: LlamaSettings) -> Classifier:
    """Loads the model that `settings` describe, in the form that is fastest on this device.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    loaded = load_model(settings)
    backbone: PreTrainedModel = getattr(loaded.model, loaded.model.base_model_prefix)
    device = next(backbone.get_input_embeddings().parameters()).device
    form = form_for(loaded.quantization)
    packed = settings.padding == "none"
    chosen = loaded.model.config._attn_implementation
    wanted = attention.implementation(packed, chosen, device, loaded.model.dtype)
    if wanted != chosen:
        loaded.model.set_attn_implementation(wanted)
    decoder = PackedDecoder(backbone, form) if packed and fits(backbone) else TransformersDecoder(backbone, form)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # gives back what held the weights in their first form
    return Classifier(
        decoder,
        head=cast(torch.nn.Module, loaded.model.score),
        columns=loaded.columns,
        pad_id=loaded.pad_id,
        device=device,
    )


def load_model(settings: LlamaSettings) -> LoadedModel:
    """Loads the model that `settings` describe as transformers has it, for inference.

    Raises `UsageError` for every reason not to believe the result; see `checks`.
    """
    with quiet_libraries(), base_model.in_memory(settings):
        directory = model_directory(settings.model)
        config = base_model.read_config(directory, settings)
        tokenizer = load_tokenizer(settings.model)
        tokenizer_pad = pad_token_id(directory, tokenizer)
        checks.check_tokenizer(tokenizer, tokenizer_pad, config.get_text_config(), settings.model)
        columns = checks.class_columns(config.id2label or {}, settings.model, settings.labels)
        quantization = quantizing.choose(config, settings)
        loaded_quantized = quantizing.loading_arguments(config, quantization, settings)
        model, info = base_model.load_base(directory, config, loaded_quantized, settings)
        checks.check_base(info, settings.model, settings.adapter is None, settings.layers)
        model.score.float()
        if settings.adapter is not None:
            head_found = checks.HEAD not in info["missing_keys"]
            model = with_adapter(model, settings, settings.adapter, head_found, merge=not loaded_quantized)
        checks.check_finite(model, settings.model)
    model.eval()
    return LoadedModel(model, columns, tokenizer_pad if tokenizer_pad is not None else 0, quantization)
