"""A model reduced to its first blocks: what it knows of a text is often in the middle, and half the blocks cost half.

The blocks after them are neither loaded nor computed; the model's last norm follows the last block that is kept.
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
    """Reduces `config` to the first `layers` blocks of the model (None: all of them).

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
    """Raises `UsageError` where the built `model` does not have `layers` blocks under a name that `_BLOCK` knows."""
    if layers is None:
        return
    stacks = [(path, len(part)) for path, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    if not any(size == layers and _BLOCK.search(f"{path}.0.") for path, size in stacks):
        raise UsageError(f"layers: {name} is a {type(model).__name__}, which is not cut to {layers}; leave layers out")


def is_dropped_block(key: str, layers: int | None) -> bool:
    """Returns whether a weight named `key` belongs to a block after the first `layers`."""
    block = _BLOCK.search(key)
    return layers is not None and block is not None and int(block[1]) >= layers
