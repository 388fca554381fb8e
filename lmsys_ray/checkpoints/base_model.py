"""A base model as transformers loads it: its config, its quantization, its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from lmsys_ray.checkpoints import checks, config_checks, depth
from lmsys_ray.checkpoints.heads import Head, find_head
from lmsys_ray.checkpoints.reading import library_errors
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import trained_dtype
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.checkpoints.weight_files import tensors
from lmsys_ray.engine import devices, gpu_memory
from lmsys_ray.engine.models.classes import classifier_class, has_own_classifier, without_weights
from lmsys_ray.errors import UsageError


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, as far as they are known without its weights."""

    directory: Path
    config: PreTrainedConfig
    head: Head
    encoder: bool
    """Whether it is computed whole, with its own pooling and head; else a decoder, whose head is named score."""


def read_checkpoint(directory: Path, settings: ModelSettings, wanted: Wanted) -> Checkpoint:
    """Returns what the files in `directory` say of the model, reduced to the blocks that `settings` ask for.

    Raises `UsageError` where transformers has no sequence classifier for it, where the weights were made for another
    computation than is `wanted`, or where `max_length` exceeds its positions.
    """
    name = settings.model
    content = config_checks.read_json(directory, name)
    with library_errors(
        f"model: {name} is not a model that transformers knows", "mend its config.json, or fetch it again"
    ):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if classifier_class(config) is None or (wanted.is_labels and not has_own_classifier(config)):
        raise UsageError(f"model: transformers has no sequence classifier for {config.model_type}, the type of {name}")
    head = find_head(tensors(directory, name), content, wanted, name)
    config_checks.check_meaning(content, config, name, wanted, head)
    is_classifier = config_checks.is_classifier(config)
    if wanted.head == "token" and is_classifier:
        raise UsageError(
            f"model: {name} is a classifier where a language model is needed; name a causal language model"
        )
    if not (is_classifier and wanted.is_labels):
        config.num_labels = wanted.outputs
    depth.keep_first(settings.layers, config, name)
    with library_errors(f"model: transformers cannot build {name} by its config.json", "mend it, or fetch it again"):
        model = without_weights(config)
        longest = positions(model)
    if config.is_encoder_decoder or not hasattr(model, model.base_model_prefix):
        raise UsageError(f"model: {name} is a {type(model).__name__}, neither a decoder nor an encoder")
    if not hasattr(config.get_text_config(), "vocab_size"):
        raise UsageError(f"model: {name} is a {type(model).__name__}, which reads no tokens; name another model")
    encoder = not hasattr(model, "score")
    if encoder and head.is_own:
        raise UsageError(f"head: {head.form} is of decoders, {name} is a {type(model).__name__}; name a decoder")
    if settings.max_length > longest > 0:
        raise UsageError(f"max_length: {settings.max_length} exceeds the {longest} positions of {name}; lower it")
    return Checkpoint(directory, config, head, encoder)


def positions(model: PreTrainedModel) -> int:
    """Returns how many tokens a row of a model may have; 0 where its config does not say it.

    RoBERTa and its kin number positions from the one after their padding's.
    """
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    tables = [part for path, part in model.named_modules() if path.endswith("position_embeddings")]
    before = [part.padding_idx + 1 for part in tables if getattr(part, "padding_idx", None) is not None]
    return max(longest - max(before, default=0), 0)


def load_base(
    checkpoint: Checkpoint, quantization: dict[str, Any], settings: ModelSettings, built: Any = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads a model; returns it and transformers' loading info. `quantization` is passed on.

    `built` is its class, by default that of the classifier.

    Raises `UsageError` for weights that cannot be read.
    """
    directory, config = checkpoint.directory, checkpoint.config
    built = built or classifier_class(config)
    with library_errors(f"model: the weights of {settings.model} cannot be read", "fetch them again"):
        if getattr(config, "quantization_config", None) is None:
            checks.check_stored(tensors(directory, settings.model), without_weights(config), settings.model)
        loaded: tuple[PreTrainedModel, dict[str, Any]] = built.from_pretrained(
            directory,
            config=config,
            dtype=devices.choose_dtype(settings.dtype, trained_dtype(settings)),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `checks` can name them
            trust_remote_code=False,
            use_safetensors=None if settings.trust_pickle else True,
            **quantization,
            **gpu_memory.placement(settings.gpus_per_replica),
        )
    depth.check_kept(settings.layers, loaded[0], settings.model)
    checks.check_rotations(loaded[0], settings.model)
    return loaded


def other_heads(checkpoint: Checkpoint, model: PreTrainedModel, name: str) -> tuple[str, ...]:
    """Returns how the names of weights begin that belong to a head which is put on here, or to another head.

    Encoders come with the heads of their pretraining, outside the backbone.
    """
    if checkpoint.encoder:
        outside = {tensor.partition(".")[0] for tensor in tensors(checkpoint.directory, name)}
        return tuple(f"{part}." for part in outside - {model.base_model_prefix})
    return tuple(f"{layer}." for layer in checkpoint.head.layers)


def last_weight(model: PreTrainedModel) -> torch.Tensor:
    """Returns the weight [labels, hidden] of the last linear layer of a classifier's head."""
    outside = (part for path, part in model.named_modules() if not path.startswith(f"{model.base_model_prefix}."))
    linear = [part for part in outside if isinstance(part, torch.nn.Linear)]
    return linear[-1].weight


@contextmanager
def in_memory(settings: ModelSettings) -> Iterator[None]:
    """Turns running out of GPU memory while a model is loaded into a `UsageError` that names the remedies."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UsageError(
            f"model: {settings.model} does not fit in the memory of the GPU; set quantization to int8 or nf4, "
            "lower layers, or give a replica more GPUs (gpus_per_replica)"
        ) from None
