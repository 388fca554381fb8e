"""From the settings to a checked classifier: base weights, quantization, adapter, head."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    LoraModel,
    PeftConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from lmsys_ray import CLASSES
from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import attention, checks, devices
from lmsys_ray.members.llama.decoder import PackedDecoder, TransformersDecoder, fits
from lmsys_ray.members.llama.depth import keep_first
from lmsys_ray.members.llama.linear import form_for
from lmsys_ray.members.llama.quiet import quiet_libraries
from lmsys_ray.members.llama.sources import (
    adapter_directory,
    check_as_trained,
    load_tokenizer,
    model_directory,
    pad_token_id,
    read_scoring,
    trained_dtype,
)


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
    with quiet_libraries():
        directory = model_directory(settings.model)
        config = _read_config(directory, settings)
        tokenizer = load_tokenizer(settings.model)
        tokenizer_pad = pad_token_id(directory, tokenizer)
        checks.check_tokenizer(tokenizer, tokenizer_pad, config.get_text_config(), settings.model)
        columns = checks.class_columns(config.id2label or {}, settings.model)
        quantization = _quantization(config, settings)
        loaded_quantized = _loaded_quantized(config, quantization, settings)
        model, info = _load_base(directory, config, loaded_quantized, settings)
        checks.check_base(info, settings.model, settings.adapter is None, settings.layers)
        model.score.float()
        if settings.adapter is not None:
            head_found = checks.HEAD not in info["missing_keys"]
            model = _with_adapter(model, settings, settings.adapter, head_found, merge=not loaded_quantized)
        checks.check_finite(model, settings.model)
    if note := devices.other_dtype(model.dtype, trained_dtype(settings)):
        logging.getLogger(__name__).warning("adapter: %s was %s", settings.adapter, note)
    model.eval()
    return LoadedModel(model, columns, tokenizer_pad if tokenizer_pad is not None else 0, quantization)


def _read_config(directory: Path, settings: LlamaSettings) -> PreTrainedConfig:
    name = settings.model
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"model: {name} is no model that transformers knows ({_first_line(error)})") from None
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UsageError(f"model: transformers has no sequence classifier for {config.model_type}, the type of {name}")
    if not any("SequenceClassification" in architecture for architecture in config.architectures or []):
        config.num_labels = len(CLASSES)
    keep_first(settings.layers, config, name)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or settings.max_length
    if settings.max_length > longest:
        raise UsageError(f"max_length: {settings.max_length} exceeds the {longest} positions of {name}; lower it")
    return config


def _quantization(config: PreTrainedConfig, settings: LlamaSettings) -> devices.Quantization:
    if getattr(config, "quantization_config", None) is not None:
        if settings.quantization != "auto":
            raise UsageError(f"quantization: {settings.model} is stored quantized already; set quantization to auto")
        return "stored"
    with torch.device("meta"):
        parameters = AutoModelForSequenceClassification.from_config(config).num_parameters()
    memory = devices.gpu_memory(settings.gpus_per_replica)
    return devices.choose_quantization(settings.quantization, parameters, memory)


def _loaded_quantized(
    config: PreTrainedConfig, quantization: devices.Quantization, settings: LlamaSettings
) -> dict[str, Any]:
    """Returns how `from_pretrained` is to quantize; empty where the weights are loaded in 16 or 32 bits."""
    if quantization == "stored":
        return {"quantization_config": config.quantization_config}
    if quantization not in ("int8", "nf4"):
        return {}
    head = ["score"]  # bitsandbytes would quantize it too
    if quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=head)}
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
        llm_int8_skip_modules=head,
    )
    return {"quantization_config": four_bits}


def _load_base(
    directory: Path, config: PreTrainedConfig, quantization: dict[str, Any], settings: LlamaSettings
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `checks` can name them
            trust_remote_code=False,
            **quantization,
            **devices.placement(settings.gpus_per_replica),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"model: the weights of {settings.model} cannot be read ({_first_line(error)})") from None
    if not hasattr(model, "score") or not hasattr(model, model.base_model_prefix):
        raise UsageError(f"model: {settings.model} is a {type(model).__name__}, not a decoder with a head named score")
    return model, info


def _with_adapter(
    model: PreTrainedModel, settings: LlamaSettings, name: str, head_found: bool, merge: bool
) -> PreTrainedModel:
    """Puts the LoRA adapter `name` on `model`, merged where `merge`."""
    directory = adapter_directory(name)
    noted = read_scoring(name)
    check_as_trained(noted, settings)
    config, weights = _read_adapter(directory, name)
    try:
        # Merged in float32; beside a quantized base the adapter computes in the base's own type.
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=merge)
    except ValueError as error:
        raise UsageError(f"adapter: {name} does not fit the model, it was made for another ({error})") from None
    own = get_peft_model_state_dict(wrapped)
    head_only = noted.get(checks.HEAD_ONLY) is True
    checks.check_adapter(weights, own, name, head_found, head_only)
    set_peft_model_state_dict(wrapped, {**own, **weights})
    tuner = cast(LoraModel, wrapped.base_model)
    return cast(PreTrainedModel, tuner.merge_and_unload() if merge else tuner.model)


def _read_adapter(directory: Path, name: str) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    file = directory / "adapter_model.safetensors"
    if not (directory / "adapter_config.json").is_file() or not file.is_file():
        raise UsageError(f"adapter: {name} lacks adapter_config.json or adapter_model.safetensors; save it with PEFT")
    try:
        config, weights = PeftConfig.from_pretrained(str(directory)), load_file(file)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise UsageError(f"adapter: {name} cannot be read ({_first_line(error)})") from None
    if not isinstance(config, LoraConfig):
        raise UsageError(f"adapter: {name} is of the type {config.peft_type}; only LoRA is supported")
    if config.task_type != TaskType.SEQ_CLS:
        raise UsageError(f"adapter: {name} was made for {config.task_type}, not for classification (SEQ_CLS)")
    return config, weights


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
