"""Attention whose scores are bounded by tanh, over all rows in one call of FlexAttention (Dong et al. 2024).

PyTorch's kernels for rows of any length take no bound. Compiled, this skips blocks of scores in which nothing is
visible and never writes a matrix of [tokens, tokens]. A CPU, on which it is only tested, does write one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lmsys_ray.engine.pointwise import CAN_COMPILE


def is_supported(query: torch.Tensor) -> bool:
    """Returns whether FlexAttention is fast for query [tokens, heads, dim]: on GPUs for which Triton compiles it."""
    return CAN_COMPILE and query.is_cuda and torch.cuda.get_device_capability(query.device) >= (8, 0)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: BlockMask,
    scaling: float,
    softcap: float,
) -> torch.Tensor:
    """Returns the attention [tokens, heads, dim] of a query of that shape to key and value [tokens, kv_heads, dim]."""

    def bounded(score: torch.Tensor, *place: torch.Tensor) -> torch.Tensor:
        return torch.tanh(score / softcap) * softcap

    states = (states.transpose(0, 1)[None] for states in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    function = _compiled(flex_attention) if query.is_cuda else flex_attention
    attended: torch.Tensor = function(*states, bounded, mask, scaling, grouped)
    return attended[0].transpose(0, 1)


def within_rows(cumulative: torch.Tensor, tokens: int, window: int | None) -> BlockMask:
    """Returns which tokens see which: the last `window` tokens of their own row, up to themselves.

    `cumulative` [rows + 1] are the tokens before each row and, last, of all rows.
    """
    places = torch.arange(tokens, device=cumulative.device)
    row = torch.bucketize(places, cumulative[1:], right=True)

    def visible(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        causal = (row[query] == row[key]) & (query >= key)
        return causal if window is None else causal & (query - key < window)

    function = _compiled(create_block_mask) if cumulative.is_cuda else create_block_mask
    made: BlockMask = function(visible, None, None, tokens, tokens, device=cumulative.device)
    return made


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)
