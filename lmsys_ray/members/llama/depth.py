"""A model cut to its first blocks: what it knows of a text often lies in the middle, and half the blocks cost half.

The blocks behind are neither computed nor loaded; the model's last norm follows the last block that is left.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from lmsys_ray.errors import UsageError

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
"""Decoders call their blocks layers (Llama, OPT, GPT-NeoX), h (GPT-2, GPT-J, Bloom, Falcon) or blocks (MPT)."""

_KINDS_OF_BLOCKS = ("layer_types", "attention_layers")


def keep_first(layers: int | None, config: Any, model: str) -> None:
    """Makes `config`, of transformers, that of the first `layers` blocks (None: all of them) of the model named so.

    Raises `UsageError` where it has fewer.
    """
    if layers is None:
        return
    text = config.get_text_config()
    blocks = getattr(text, "num_hidden_layers", None)
    if not isinstance(blocks, int):
        raise UsageError(f"layers: the config of {model} does not say how many blocks it has; leave layers out")
    if layers > blocks:
        raise UsageError(f"layers: {layers} exceeds the {blocks} blocks of {model}; lower it")
    text.num_hidden_layers = layers
    for key in _KINDS_OF_BLOCKS:
        if getattr(text, key, None):
            setattr(text, key, getattr(text, key)[:layers])


def check_kept(layers: int | None, model: nn.Module, name: str) -> None:
    """Demands that the built `model` has as many blocks as `keep_first` left, where those behind are told by name.

    Raises `UsageError` where it is a decoder of another build.
    """
    if layers is None:
        return
    stacks = [(path, len(part)) for path, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    if not any(size == layers and _BLOCK.search(f"{path}.0.") for path, size in stacks):
        raise UsageError(f"layers: {name} is a {type(model).__name__}, which is not cut to {layers}; leave layers out")


def is_behind(key: str, layers: int | None) -> bool:
    """Returns whether a weight named `key` belongs to a block behind the first `layers`."""
    block = _BLOCK.search(key)
    return layers is not None and block is not None and int(block[1]) >= layers
