"""Loads an encoder without a classifier's head, whose token states are averaged, and the linear head beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedModel

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints import base_model, checks, quantization
from lmsys_ray.checkpoints.reading import library_errors
from lmsys_ray.checkpoints.self_check import expected
from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.sources import model_directory, read_tokenizer, trained_dtype
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.checkpoints.weight_files import header, tensors
from lmsys_ray.engine import devices, gpu_memory
from lmsys_ray.engine.classifier import Classifier
from lmsys_ray.engine.linear.forms import keep_linear, linear_factory
from lmsys_ray.engine.models.averaged import AveragedEncoder
from lmsys_ray.engine.models.encoder import TransformersEncoder
from lmsys_ray.errors import UsageError
from lmsys_ray.quiet import quiet_libraries

HEAD_FILE = "head.safetensors"
"""The head's file beside the encoder: `weight` [3, 2 dim] and `bias` [3], for the means of A and of B side by side."""

_POOLER = "pooler."
"""How the names of weights begin that pool the first token, which is not read here."""


def load_averaged(settings: ModelSettings, slots: int | None = None, plain: bool = False) -> Classifier:
    """Loads the encoder that `settings` describe; its outputs are the mean states of texts, float32 [rows, dim].

    `slots` is as in `AveragedEncoder`. Where `plain`, linear layers stay PyTorch's own. Raises `UsageError` for every
    reason not to believe the result; see `checks`.
    """
    gpu_memory.limit_memory(settings.gpus_per_replica)
    encoder, pad_id = load_encoder(settings)
    model: Any = AveragedEncoder(encoder, pad_id, slots)
    longest = min(settings.max_length, base_model.positions(encoder) or settings.max_length)
    probed = expected(model, settings.model, longest, None, rounds=False)
    other = devices.other_dtype(encoder.dtype, trained_dtype(settings))
    embedding = next(encoder.get_input_embeddings().parameters())
    return Classifier(
        TransformersEncoder(model, keep_linear if plain else linear_factory("none")),
        head=torch.nn.Identity(),
        columns=[*range(dim_of(encoder))],
        pad_id=pad_id,
        pooling_pad=None,
        causal=False,
        long_beyond=sys.maxsize,
        device=embedding.device,
        embedded=len(embedding),
        expected=probed,
        depends_on_batch=False,
        notes=(f"model: {settings.model} was {other}",) if other else (),
        plain=plain,
    )


def load_encoder(settings: ModelSettings) -> tuple[PreTrainedModel, int]:
    """Loads the encoder that `settings` describe, as transformers has it, for inference; returns it and the pad's id.

    Raises `UsageError` where it is a decoder, is computed by other code, or where its weights are not whole.
    """
    name = settings.model
    with quiet_libraries(), base_model.in_memory(settings):
        directory = model_directory(name, trust_pickle=settings.trust_pickle)
        checkpoint = base_model.read_checkpoint(directory, settings, Wanted.one_score())
        if not checkpoint.encoder:
            raise UsageError(f"model: {name} is a decoder where an encoder is needed; name one such as DeBERTa or BERT")
        read = read_tokenizer(name, append_eos=settings.append_eos)
        checks.check_tokenizer(read.tokenizer, read.pad_id, checkpoint.config.get_text_config(), name)
        quantization.choose(checkpoint, settings)
        encoder, info = base_model.load_base(checkpoint, {}, settings, AutoModel)
        missing = [key for key in info["missing_keys"] if not key.startswith(_POOLER)]
        stored = tensors(directory, name)
        prefix = f"{encoder.base_model_prefix}."
        within = any(key.startswith(prefix) for key in stored)
        others = base_model.other_heads(checkpoint, encoder, name) if within else ()
        checks.check_base({**info, "missing_keys": missing}, name, (), head_needed=False, others=others)
        gpu_memory.check_placed(encoder, name)
        checks.check_finite(encoder, name)
    return encoder.eval(), read.pad_id if read.pad_id is not None else 0


def dim_of(encoder: PreTrainedModel) -> int:
    """Returns the size of a token's state."""
    return cast(int, encoder.config.get_text_config().hidden_size)


def read_head(directory: Path, name: str, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weight [3, 2 dim] and bias [3] of the head in `directory`, float32, for an encoder of states of `dim`.

    Raises `UsageError` where there is none, or where it cannot be that of the encoder, or was never trained.
    """
    file = check_head_file(directory, name)
    place = f"model: {HEAD_FILE} of {name}"
    with library_errors(f"{place} cannot be read", "restore it"):
        header(file)
        found = load_file(file)
    _check_shapes(found, {"weight": [len(CLASSES), 2 * dim], "bias": [len(CLASSES)]}, place)
    weight, bias = (found[key].float() for key in ("weight", "bias"))
    for key, values in (("weight", weight), ("bias", bias)):
        if not torch.isfinite(values).all():
            raise UsageError(f"{place} holds NaN or infinity ({key}); train it again")
    checks.check_head(weight, name)
    return weight, bias


def check_head_file(directory: Path, name: str) -> Path:
    """Returns the head's file; raises `UsageError` where there is none."""
    file = directory / HEAD_FILE
    if not file.is_file():
        raise UsageError(
            f"model: {name} holds no {HEAD_FILE}, so its answers would be random; name a directory that "
            "jobs/train_shared_encoder.py wrote"
        )
    return file


def _check_shapes(found: Mapping[str, torch.Tensor], wanted: Mapping[str, list[int]], place: str) -> None:
    shapes = {key: list(value.shape) for key, value in found.items()}
    if shapes != wanted:
        raise UsageError(f"{place} holds {_listed(shapes)} where {_listed(wanted)} are needed; name its own encoder")
    if not all(value.is_floating_point() for value in found.values()):
        raise UsageError(f"{place} is not stored in a floating-point type; save it again")


def _listed(shapes: Mapping[str, list[int]]) -> str:
    return " and ".join(f"{key} {shape}" for key, shape in sorted(shapes.items())) or "nothing"
