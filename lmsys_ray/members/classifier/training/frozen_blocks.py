"""The blocks below the adapted ones: their output for a row never changes, so it is computed once and kept.

With the last n of N blocks adapted, an epoch over known rows costs 2n/(N + n) of the usual: forward and backward
through n blocks, without the forward pass through the N - n blocks below.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from lmsys_ray.errors import UsageError

_PROBE = torch.arange(1, 15).reshape(2, 7)


class FrozenBlocks:
    """Returns the hidden states below the last `adapted` blocks of a decoder, from memory for known rows.

    Two views of `backbone` share its weights: `lower` ends before the adapted blocks, `upper` begins with them. States
    are kept as the model computes them: tokens * hidden size * 2 bytes a row in 16 bits.
    """

    def __init__(self, backbone: Any, adapted: int, compute: torch.dtype) -> None:
        blocks = list(backbone.layers)
        self._lower = _view(backbone, blocks[:-adapted])
        self._lower.norm = torch.nn.Identity()
        self.upper = _view(backbone, blocks[-adapted:])
        self._compute = compute
        self._device = next(backbone.parameters()).device
        self._known: dict[Hashable, torch.Tensor] = {}

    def collate(self, keys: Sequence[Hashable], rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns hidden states [rows, tokens, hidden], padded with zeros on the right, and lengths [rows].

        `keys` identify the rows: rows with the same key have the same tokens.
        """
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            self._learn([keys[place] for place in new], [rows[place] for place in new])
        states = torch.nn.utils.rnn.pad_sequence([self._known[key] for key in keys], batch_first=True)
        return states, torch.tensor([len(row) for row in rows], device=self._device)

    @torch.no_grad()
    def _learn(self, keys: list[Hashable], rows: list[np.ndarray]) -> None:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
        for key, row, states in zip(keys, rows, self._states(ids.to(self._device)), strict=True):
            self._known[key] = states[: len(row)].clone()

    def _states(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(ids.device.type, self._compute, enabled=self._compute != torch.float32):
            hidden: torch.Tensor = self._lower(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    @torch.no_grad()
    def check(self, backbone: Any, name: str) -> None:
        """Raises `UsageError` where the two parts together do not compute the same as the whole."""
        ids = _PROBE.to(self._device)
        with torch.autocast(ids.device.type, self._compute, enabled=self._compute != torch.float32):
            whole = backbone(input_ids=ids, use_cache=False).last_hidden_state
            parts = self.upper(inputs_embeds=self._states(ids), use_cache=False).last_hidden_state
        if not torch.allclose(whole.float(), parts.float(), rtol=0.02, atol=0.02 * float(whole.float().std())):
            raise UsageError(
                f"keep_frozen: the blocks of {name} cannot be computed in two parts; set keep_frozen=false"
            )


def _view(backbone: Any, blocks: list[Any]) -> Any:
    """Returns a model with the same weights that has only `blocks`."""
    view = copy.copy(backbone)
    view._modules = dict(backbone._modules)
    view.layers = torch.nn.ModuleList(blocks)
    view.config = copy.deepcopy(backbone.config)
    view.config.num_hidden_layers = len(blocks)
    if getattr(view.config, "layer_types", None):
        view.config.layer_types = view.config.layer_types[: len(blocks)]
    return view
