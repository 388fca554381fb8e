"""Causal attention of rows of one length by PyTorch's own kernels, whatever the device."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax


def row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Returns causal attention [rows, heads, last, dim] of the last tokens of each row, or of all."""
    if window is None and softcap is None and query.shape[2] == key.shape[2]:
        return torch_attention(query, key, value, is_causal=True, scale=scaling)
    mask = _causal_mask(query.shape[2], key.shape[2], window, query.device)
    if softcap is None:
        return torch_attention(query, key, value, attn_mask=mask, scale=scaling)
    key, value = _for_each_query_head(query, key, value)
    scores = query @ key.transpose(2, 3) * scaling
    scores = torch.tanh(scores / softcap) * softcap  # Gemma 2 bounds its scores
    scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def torch_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """Returns PyTorch's attention of [rows, heads, tokens, dim] to [rows, kv_heads, seen, dim].

    On a GPU this is only called where FlashAttention cannot be. There PyTorch 2.13 writes out all scores for heads that
    share keys; with the keys repeated it takes the memory-efficient kernel. Measurements: docs/lab/attention.md.
    """
    grouped = query.shape[1] != key.shape[1]
    if grouped and not _shares_keys(query):
        key, value = _for_each_query_head(query, key, value)
        grouped = False
    return scaled_dot_product_attention(query, key, value, enable_gqa=grouped, **keywords)


def _for_each_query_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    groups = query.shape[1] // key.shape[1]
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)


def _causal_mask(last: int, tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Returns bool [last, tokens]: whether one of a row's last tokens (first axis) sees another of its tokens."""
    distance = torch.arange(tokens - last, tokens, device=device)[:, None] - torch.arange(tokens, device=device)
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _shares_keys(query: torch.Tensor) -> bool:
    """Returns whether PyTorch has a kernel for heads that share keys which does not write out all scores."""
    return not query.is_cuda
