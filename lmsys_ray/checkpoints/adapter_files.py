"""Reads the two files of a PEFT adapter."""

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lmsys_ray.checkpoints.adapter_config import FILE as CONFIG
from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.checkpoints.sources import ADAPTER_FILES, adapter_directory
from lmsys_ray.checkpoints.weight_files import header
from lmsys_ray.errors import UsageError, first_line

WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"

_UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, EOFError, AttributeError),
    *(SafetensorError, pickle.UnpicklingError),
)

# What models with a head named score call their embedding, and what PEFT puts between that and its weight.
_NAMES = r"\.(embed_tokens|wte|word_embeddings|embed_in)"
_EMBEDDING = re.compile(rf"{_NAMES}(\.token_adapter)?(\.base_layer)?\.weight$")
_EMBEDDING_AGAIN = re.compile(rf"{_NAMES}\.(original_module|modules_to_save)\.weight$")


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """Returns the content of adapter_config.json.

    Raises `UsageError` where it is missing, truncated or not a mapping.
    """
    if not (directory / CONFIG).is_file():
        raise UsageError(f"adapter: {name} lacks {CONFIG}; name the directory that PEFT's save_pretrained wrote")
    return read_mapping(directory / CONFIG, f"adapter: {CONFIG} of {name}", "copy it again")


def weights_directory(name: str, trust_pickle: bool) -> Path:
    """Returns a local directory with the files of the adapter `name`, with a pickle only if there are no safetensors.

    Raises `UsageError` where it is not found, or has its weights only in a pickle that is not trusted.
    """
    directory = adapter_directory(name)
    if (directory / WEIGHTS).is_file():
        return directory
    if trust_pickle:
        directory = adapter_directory(name, (*ADAPTER_FILES, PICKLED))
    if trust_pickle and (directory / PICKLED).is_file():
        return directory
    if (directory / PICKLED).is_file():
        raise UsageError(
            f"adapter: {name} holds a pickle ({PICKLED}), which could run code, and no {WEIGHTS}; "
            "load it with PEFT where you trust it and save it again by save_pretrained, or add --trust-pickle"
        )
    raise UsageError(f"adapter: {name} lacks {WEIGHTS}; name the directory that PEFT's save_pretrained wrote")


def read_weights(directory: Path, name: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of an adapter in a directory that `weights_directory` returned.

    Raises `UsageError` where the file is damaged.
    """
    try:
        weights = load_file(directory / WEIGHTS) if (directory / WEIGHTS).is_file() else _unpickled(directory)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None
    # PEFT saves an embedding that was resized and trained three times over, and reads the first copy.
    return {key: weight for key, weight in weights.items() if not _EMBEDDING_AGAIN.search(key)}


def embedding_rows(directory: Path, name: str) -> int | None:
    """Returns how many token embeddings the adapter brings, or None where it keeps those of the model.

    An adapter has them if tokens were added before training. Reads only the header of the file. Raises `UsageError` as
    `read_weights` does.
    """
    try:
        if not (directory / WEIGHTS).is_file():
            shapes = {key: list(weight.shape) for key, weight in _unpickled(directory).items()}
        else:
            shapes = {key: tensor.shape for key, tensor in header(directory / WEIGHTS).items()}
        key = embedding_key(shapes)
        return None if key is None else int(shapes[key][0])
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def embedding_key(keys: Iterable[str]) -> str | None:
    """Returns which of `keys` holds the whole token embedding [tokens, dim] of an adapter, if any does."""
    return next((key for key in keys if _EMBEDDING.search(key)), None)


def _unpickled(directory: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of adapter_model.bin, which the user trusts; other objects are still refused."""
    content = torch.load(directory / PICKLED, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(weight, torch.Tensor) for weight in content.values()):
        raise ValueError("it is not a mapping of names to tensors")
    return content


def _unreadable(name: str, error: Exception) -> UsageError:
    return UsageError(f"adapter: the weights of {name} cannot be read ({first_line(error, 200)}); copy it again")
