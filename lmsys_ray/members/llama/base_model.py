"""A base model as transformers loads it: its config, its quantization, its weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from lmsys_ray import CLASSES
from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama import devices, gpu_memory
from lmsys_ray.members.llama.depth import keep_first
from lmsys_ray.members.llama.quiet import FOREIGN_ERRORS, first_line
from lmsys_ray.members.llama.sources import trained_dtype


def read_config(directory: Path, settings: LlamaSettings) -> PreTrainedConfig:
    """Returns the config of the model in `directory`, cut to the blocks that `settings` ask for.

    Raises `UsageError` where transformers has no sequence classifier for it, or the rows may be too long for it.
    """
    name = settings.model
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"model: {name} is no model that transformers knows ({first_line(error)})") from None
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UsageError(f"model: transformers has no sequence classifier for {config.model_type}, the type of {name}")
    if not any("SequenceClassification" in architecture for architecture in config.architectures or []):
        config.num_labels = len(CLASSES)
    keep_first(settings.layers, config, name)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
    if settings.max_length > longest > 0:
        raise UsageError(f"max_length: {settings.max_length} exceeds the {longest} positions of {name}; lower it")
    return config


def check_decoder(config: PreTrainedConfig, name: str) -> None:
    """Demands that the classifier of this config is a decoder whose head is named score, before weights are read.

    Raises `UsageError` where it is not, and where transformers makes no model of the config.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except FOREIGN_ERRORS as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"model: transformers makes no model of the config.json of {name} ({reason})") from None
    if config.is_encoder_decoder or not hasattr(model, "score") or not hasattr(model, model.base_model_prefix):
        raise UsageError(f"model: {name} is a {type(model).__name__}, not a decoder with a head named score")


def load_base(
    directory: Path, config: PreTrainedConfig, quantization: dict[str, Any], settings: LlamaSettings
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Returns the model of `directory` with what transformers says of its loading; `quantization` is passed on to it.

    Raises `UsageError` for weights that cannot be read.
    """
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `checks` can name them
            trust_remote_code=False,
            **quantization,
            **gpu_memory.placement(settings.gpus_per_replica),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"model: the weights of {settings.model} cannot be read ({first_line(error)})") from None
    return model, info
