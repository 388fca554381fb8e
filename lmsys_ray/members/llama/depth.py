"""A model cut to its first blocks: what it knows of a text often lies in the middle, and half the blocks cost half.

The blocks behind are neither computed nor loaded; the model's last norm follows the last block that is left.
"""

from __future__ import annotations

import re
from typing import Any

from lmsys_ray.errors import UsageError

_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def keep_first(layers: int | None, config: Any, model: str) -> None:
    """Makes `config`, of transformers, that of the first `layers` blocks (None: all of them) of the model named so.

    Raises `UsageError` where it has fewer.
    """
    if layers is None:
        return
    text = config.get_text_config()
    if layers > text.num_hidden_layers:
        raise UsageError(f"layers: {layers} exceeds the {text.num_hidden_layers} blocks of {model}; lower it")
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]


def is_behind(key: str, layers: int | None) -> bool:
    """Returns whether a weight named `key` belongs to a block behind the first `layers`."""
    block = _BLOCK.search(key)
    return layers is not None and block is not None and int(block[1]) >= layers
