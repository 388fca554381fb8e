"""Attention over rows laid end to end: each token sees its own row only, and nothing is padded.

Registered with transformers under `NAME`; a model that uses it is called with the keyword arguments of `layout`, which
follow FlashAttention's variable-length interface. On CUDA devices of capability 8 and above PyTorch's own
FlashAttention runs over all rows at once; elsewhere each row is one causal call of scaled dot-product attention. Both
do without a mask of [tokens, tokens].
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lmsys_ray.errors import RunError

NAME = "packed_rows"


def layout(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Returns the keyword arguments that tell a model where rows of `lengths` tokens begin and end.

    `position_ids` [1, tokens] restart at 0 with each row; `cu_seq_lens_q` [rows + 1] holds the cumulative lengths.
    """
    sizes = torch.tensor([0, *lengths], dtype=torch.int32)
    ends = torch.cumsum(sizes, 0, dtype=torch.int32)
    starts = torch.repeat_interleave(ends[:-1], sizes[1:])
    positions = torch.arange(int(ends[-1]), dtype=torch.int32) - starts
    return {
        "position_ids": to_device(positions[None].long(), device),
        "cu_seq_lens_q": to_device(ends, device),
        "row_lengths": tuple(int(length) for length in lengths),
    }


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    row_lengths: tuple[int, ...],
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of query [1, heads, tokens, dim], key and value [1, kv_heads, tokens, dim].

    Returns [1, tokens, heads, dim], the layout that transformers expects back.
    """
    if others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise RunError(f"padding: {type(module).__name__} uses attention that cannot be packed; set padding to longest")
    window = sliding_window if sliding_window is not None and max(row_lengths) > sliding_window else None
    if softcap is None and _has_varlen_kernel(query):
        return _varlen_attention(query, key, value, cu_seq_lens_q, max(row_lengths), scaling, window), None
    rows = zip(*(tensor.split(row_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [_row_attention(q, k, v, scaling, window, softcap).transpose(1, 2) for q, k, v in rows]
    return torch.cat(outputs, dim=1), None


def _varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cumulative: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """FlashAttention over all rows at once; returns [1, tokens, heads, dim]."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    seen = (-1, 0) if window is None else (window - 1, 0)  # tokens to the left and right; -1 is all
    grouped = query.shape[1] != key.shape[1]
    output = varlen_attn(
        q, k, v, cumulative, cumulative, longest, longest, scale=scaling, window_size=seen, enable_gqa=grouped
    )
    return cast(torch.Tensor, output).unsqueeze(0)


def _row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention of one row; returns [1, heads, tokens, dim]."""
    grouped = query.shape[1] != key.shape[1]
    if window is None and softcap is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    mask = _causal_mask(query.shape[2], window, query.device)
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap  # Gemma 2 bounds its scores
    scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _causal_mask(tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """True [tokens, tokens] where a token (first axis) sees another, of its own row."""
    distance = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _has_varlen_kernel(query: torch.Tensor) -> bool:
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] > 256:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies to a GPU without waiting for the copy; on the CPU the tensor is used as it is."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


AttentionInterface.register(NAME, packed_attention)
# Rows are told apart by the layout, not by a mask.
AttentionMaskInterface.register(NAME, lambda *arguments, **keywords: None)
