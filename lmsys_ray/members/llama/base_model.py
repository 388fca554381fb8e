"""A base model as transformers loads it: its config, its quantization, its weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
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
from lmsys_ray.members.llama import checks, config_checks, depth, devices, gpu_memory
from lmsys_ray.members.llama.reading import reading
from lmsys_ray.members.llama.sources import trained_dtype

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(directory: Path, settings: LlamaSettings) -> PreTrainedConfig:
    """Returns the config of the model in `directory`, cut to the blocks that `settings` ask for.

    Raises `UsageError` where transformers has no sequence classifier for it, the weights were made for another
    computation, or the rows may be too long for it.
    """
    name = settings.model
    content = config_checks.read_json(directory, name)
    with reading(f"model: {name} is no model that transformers knows", "mend its config.json, or fetch it again"):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UsageError(f"model: transformers has no sequence classifier for {config.model_type}, the type of {name}")
    config_checks.check_meaning(content, config, name)
    if not config_checks.is_classifier(config):
        config.num_labels = len(CLASSES)
    depth.keep_first(settings.layers, config, name)
    with reading(f"model: transformers cannot build {name} by its config.json", "mend it, or fetch it again"):
        longest = getattr(config.get_text_config(), "max_position_embeddings", None) or 0
        too_long = settings.max_length > longest > 0
        model = _without_weights(config)
    if config.is_encoder_decoder or not hasattr(model, "score") or not hasattr(model, model.base_model_prefix):
        raise UsageError(f"model: {name} is a {type(model).__name__}, not a decoder with a head named score")
    if too_long:
        raise UsageError(f"max_length: {settings.max_length} exceeds the {longest} positions of {name}; lower it")
    return config


def load_base(
    directory: Path, config: PreTrainedConfig, quantization: dict[str, Any], settings: LlamaSettings
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Returns the model of `directory` with what transformers says of its loading; `quantization` is passed on to it.

    Raises `UsageError` for weights that cannot be read.
    """
    with reading(f"model: the weights of {settings.model} cannot be read", "fetch them again"):
        if getattr(config, "quantization_config", None) is None:
            checks.check_stored(_stored(directory), _without_weights(config), settings.model)
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
    depth.check_kept(settings.layers, model, settings.model)
    checks.check_rotations(model, settings.model)
    return model, info


def _without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def _stored(directory: Path) -> dict[str, tuple[str, list[int]]]:
    """Returns by name the type and the shape of each weight that transformers will load, by the files' headers."""
    files: set[str] = set()
    if (directory / _WEIGHTS).is_file():
        files = {_WEIGHTS}
    elif (directory / _INDEX).is_file():
        files = set(json.loads((directory / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    stored = {}
    for file in sorted(files):
        if not (directory / file).is_file():
            raise FileNotFoundError(f"{file} is missing")
        with safe_open(directory / file, "pt") as weights:
            names = weights.keys()
            views = {name: weights.get_slice(name) for name in names}
            stored.update({name: (view.get_dtype(), view.get_shape()) for name, view in views.items()})
    return stored


@contextmanager
def in_memory(settings: LlamaSettings) -> Iterator[None]:
    """Turns running out of a GPU's memory while a model is loaded into a `UsageError` that names the remedies."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UsageError(
            f"model: {settings.model} does not fit in the memory of the GPU; set quantization to int8 or nf4, "
            "lower layers, or give a replica more GPUs (gpus_per_replica)"
        ) from None
