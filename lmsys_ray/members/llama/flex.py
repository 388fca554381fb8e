"""Attention whose scores are bounded by tanh, over all rows in one call of FlexAttention (Dong et al. 2024).

PyTorch's kernels for rows of any length take no bound. A block of scores whose rows, or whose window, leave nothing to
see is skipped, and no matrix of [tokens, tokens] is written. That takes compiling; a CPU, where this is but tested,
writes it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lmsys_ray.members.llama.pointwise import CAN_COMPILE


def serves(query: torch.Tensor) -> bool:
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
    """Attention of query [tokens, heads, dim] to key and value [tokens, kv_heads, dim]; returns as query."""

    def bounded(score: torch.Tensor, *place: torch.Tensor) -> torch.Tensor:
        return torch.tanh(score / softcap) * softcap

    states = (states.transpose(0, 1)[None] for states in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    function = _compiled(flex_attention) if query.is_cuda else flex_attention
    attended: torch.Tensor = function(*states, bounded, mask, scaling, grouped)
    return attended[0].transpose(0, 1)


def within_rows(cumulative: torch.Tensor, tokens: int, window: int | None) -> BlockMask:
    """Returns which tokens see which: those of their own row, up to themselves, the last `window` of them.

    `cumulative` [rows + 1] are the tokens before each row, and all.
    """
    places = torch.arange(tokens, device=cumulative.device)
    row = torch.bucketize(places, cumulative[1:], right=True)

    def seen(batch: torch.Tensor, head: torch.Tensor, asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        visible = (row[asking] == row[asked]) & (asking >= asked)
        return visible if window is None else visible & (asking - asked < window)

    function = _compiled(create_block_mask) if cumulative.is_cuda else create_block_mask
    made: BlockMask = function(seen, None, None, tokens, tokens, device=cumulative.device)
    return made


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)
