"""Counts the operations of a decoder's forward pass from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RANDOM: dict[str, dict[str, int]] = {
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    },
}
"""Configurations of randomly initialised models, to measure speed without weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of the Llama family."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Reads a config.json."""
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        )

    @property
    def products(self) -> list[list[tuple[int, int]]]:
        """The weights of a layer as (inputs, outputs), in groups that read the same inputs."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            [(self.hidden, q), (self.hidden, kv), (self.hidden, kv)],
            [(q, self.hidden)],
            [(self.hidden, self.intermediate), (self.hidden, self.intermediate)],
            [(self.intermediate, self.hidden)],
        ]

    def operations(self, lengths: np.ndarray) -> float:
        """Returns the floating-point operations for rows of `lengths` tokens: products with weights, causal attention.

        This is the work of the plain model, where a multiplication and an addition count as 2, without embedding, head
        and element-wise steps. A side that skips unneeded work counts as faster.
        """
        weights = sum(inputs * outputs for group in self.products for inputs, outputs in group)
        seen = (lengths.astype(np.float64) * (lengths + 1) / 2).sum()  # pairs of tokens of which one sees the other
        return self.layers * (2.0 * weights * lengths.sum() + 4.0 * self.heads * self.head_dim * seen)
