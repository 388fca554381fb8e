"""The two files of a PEFT adapter, read or refused with a sentence."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.adapter_config import FILE as CONFIG
from lmsys_ray.members.llama.quiet import first_line

WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"

_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError)

# As the libraries of models that have a head named score call it, and what PEFT puts between it and its weight.
_NAMES = r"\.(embed_tokens|wte|word_embeddings|embed_in)"
_EMBEDDING = re.compile(rf"{_NAMES}(\.token_adapter)?(\.base_layer)?\.weight$")
_EMBEDDING_AGAIN = re.compile(rf"{_NAMES}\.(original_module|modules_to_save)\.weight$")


def read_config(directory: Path, name: str) -> dict[str, Any]:
    """Returns the content of adapter_config.json.

    Raises `UsageError` where it is missing, cut off or no mapping.
    """
    if not (directory / CONFIG).is_file():
        raise UsageError(f"adapter: {name} lacks {CONFIG}; name the directory that PEFT's save_pretrained wrote")
    try:
        content = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except _UNREADABLE as error:
        raise UsageError(f"adapter: {CONFIG} of {name} is no JSON ({first_line(error)[:200]}); copy it again") from None
    if not isinstance(content, dict):
        raise UsageError(f"adapter: {CONFIG} of {name} is no mapping of settings; copy it again")
    return content


def read_weights(directory: Path, name: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of adapter_model.safetensors.

    Raises `UsageError` where it is missing or cut off; a pickle is not read, since that could run code.
    """
    _check_there(directory, name)
    try:
        weights = load_file(directory / WEIGHTS)
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None
    # PEFT saves an embedding that was resized and trained three times, and reads the first.
    return {key: weight for key, weight in weights.items() if not _EMBEDDING_AGAIN.search(key)}


def embedding_rows(directory: Path, name: str) -> int | None:
    """Returns how many token embeddings the adapter brings, None where it leaves those of the model.

    A model with tokens added before training was saved so; reads the header of the file alone.
    Raises `UsageError` as `read_weights` does.
    """
    _check_there(directory, name)
    try:
        with safe_open(directory / WEIGHTS, framework="pt") as file:
            key = embedding_key(file.keys())
            return None if key is None else int(file.get_slice(key).get_shape()[0])
    except _UNREADABLE as error:
        raise _unreadable(name, error) from None


def embedding_key(keys: Iterable[str]) -> str | None:
    """Returns under which of `keys` an adapter holds the whole token embedding [tokens, dim], where it does."""
    return next((key for key in keys if _EMBEDDING.search(key)), None)


def _check_there(directory: Path, name: str) -> None:
    if (directory / WEIGHTS).is_file():
        return
    if (directory / PICKLED).is_file():
        raise UsageError(
            f"adapter: {name} holds a pickle ({PICKLED}), which could run code, and no {WEIGHTS}; "
            "load it with PEFT where you trust it and save it again by save_pretrained"
        )
    raise UsageError(f"adapter: {name} lacks {WEIGHTS}; name the directory that PEFT's save_pretrained wrote")


def _unreadable(name: str, error: Exception) -> UsageError:
    return UsageError(f"adapter: {WEIGHTS} of {name} cannot be read ({first_line(error)[:200]}); copy it again")
