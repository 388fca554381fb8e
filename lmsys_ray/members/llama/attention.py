"""Attention over rows laid end to end: each token sees its own row only, and nothing is padded.

Registered with transformers under `NAME`; a model that uses it is called with the keyword arguments of a `Layout`,
which follow FlashAttention's variable-length interface. On CUDA devices of capability 8 and above PyTorch's own
FlashAttention runs over all rows at once; elsewhere each row is one causal call of scaled dot-product attention, or on
a CPU of `query_blocks`. All do without a mask of [tokens, tokens].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lmsys_ray.errors import RunError
from lmsys_ray.members.llama import query_blocks

NAME = "packed_rows"


@dataclass(frozen=True)
class Layout:
    """Where rows laid end to end begin and end."""

    position_ids: torch.Tensor
    """[1, tokens], from 0 in each row, or from the tokens that it shares."""
    cumulative: torch.Tensor
    """[rows + 1], int32: the tokens before each row, and all."""
    lengths: tuple[int, ...]
    shared: tuple[int, ...] = ()
    """Tokens that each row begins with as the row before it does; they are not laid out again. Empty: none."""

    @property
    def longest(self) -> int:
        return max(self.lengths)

    def keywords(self) -> dict[str, Any]:
        """Returns what a model of transformers passes on to `packed_attention`."""
        return {
            "position_ids": self.position_ids,
            "cu_seq_lens_q": self.cumulative,
            "row_lengths": self.lengths,
        }


def layout(lengths: Sequence[int], device: torch.device, shared: Sequence[int] = ()) -> Layout:
    """Returns the layout of rows of `lengths` tokens each, beside those that a row shares with the one before it.

    Only `within_rows` and `of_last_tokens`, and only without the kernel for rows of any length, know what is shared.
    """
    sizes = torch.tensor([0, *lengths], dtype=torch.int32)
    ends = torch.cumsum(sizes, 0, dtype=torch.int32)
    shared = tuple(map(int, shared)) if any(shared) else ()
    before_own = ends[:-1] - torch.tensor(shared, dtype=torch.int32) if shared else ends[:-1]
    positions = torch.arange(int(ends[-1]), dtype=torch.int32) - torch.repeat_interleave(before_own, sizes[1:])
    return Layout(to_device(positions[None].long(), device), to_device(ends, device), tuple(map(int, lengths)), shared)


def within_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Layout, scaling: float
) -> torch.Tensor:
    """Causal attention of query [tokens, heads, dim], key and value [tokens, kv_heads, dim]; returns as query."""
    if _has_varlen_kernel(query):
        return _varlen_attention(query, key, value, rows.cumulative, rows.longest, scaling, window=None)
    return _row_by_row(query, _seen(key, rows), _seen(value, rows), rows.lengths, scaling, None, None)


def of_last_tokens(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Layout, scaling: float
) -> torch.Tensor:
    """Attention of each row's last token, query [rows, heads, dim], to all of its row; returns as query."""
    grouped = query.shape[1] != key.shape[1]
    if _has_varlen_kernel(query):
        from torch.nn.attention.varlen import varlen_attn

        single = torch.arange(len(rows.lengths) + 1, dtype=torch.int32, device=query.device)
        ends = single, rows.cumulative, 1, rows.longest
        return cast(torch.Tensor, varlen_attn(query, key, value, *ends, scale=scaling, enable_gqa=grouped))
    outputs = [
        scaled_dot_product_attention(
            q[None, :, None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], scale=scaling, enable_gqa=grouped
        )
        for q, k, v in zip(query, _seen(key, rows), _seen(value, rows), strict=True)
    ]
    return torch.cat(outputs)[:, :, 0]


def _seen(keys: torch.Tensor, rows: Layout) -> Sequence[torch.Tensor]:
    """Returns the keys or values [tokens, kv_heads, dim] of each row, with those that it shares."""
    own = keys.split(rows.lengths)
    if not rows.shared:
        return own
    seen: list[torch.Tensor] = []
    for part, shared in zip(own, rows.shared, strict=True):
        seen.append(torch.cat([seen[-1][:shared], part]) if shared else part)
    return seen


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
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if softcap is None and _has_varlen_kernel(query):
        attended = _varlen_attention(query, key, value, cu_seq_lens_q, max(row_lengths), scaling, window)
    else:
        keys, values = key.split(row_lengths), value.split(row_lengths)
        attended = _row_by_row(query, keys, values, row_lengths, scaling, window, softcap)
    return attended[None], None


def _varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cumulative: torch.Tensor,
    longest: int,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """FlashAttention over all rows at once; [tokens, heads, dim] in and out."""
    from torch.nn.attention.varlen import varlen_attn

    seen = (-1, 0) if window is None else (window - 1, 0)  # tokens to the left and right; -1 is all
    grouped = query.shape[1] != key.shape[1]
    ends = cumulative, cumulative, longest, longest
    output = varlen_attn(query, key, value, *ends, scale=scaling, window_size=seen, enable_gqa=grouped)
    return cast(torch.Tensor, output)


def _row_by_row(
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    lengths: tuple[int, ...],
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention of each row of query [tokens, heads, dim] to its own keys and values; returns as query."""
    attended = query.new_empty(query.shape)
    for q, k, v, target in zip(query.split(lengths), keys, values, attended.split(lengths), strict=True):
        if window is None and softcap is None and query_blocks.gains(q, k):
            query_blocks.attend(q, k, v, scaling, target)
        else:
            query_, key_, value_ = (part.transpose(0, 1)[None] for part in (q, k, v))
            target.copy_(_row_attention(query_, key_, value_, scaling, window, softcap)[0].transpose(0, 1))
    return attended


def _row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention of one row's query, the last of its tokens or all; returns [1, heads, tokens, dim]."""
    grouped = query.shape[1] != key.shape[1]
    if window is None and softcap is None and query.shape[2] == key.shape[2]:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    mask = _causal_mask(query.shape[2], key.shape[2], window, query.device)
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    scores = torch.tanh(scores / softcap) * softcap  # Gemma 2 bounds its scores
    scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _causal_mask(last: int, tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """True [last, tokens] where one of a row's last tokens (first axis) sees another of its tokens."""
    distance = torch.arange(tokens - last, tokens, device=device)[:, None] - torch.arange(tokens, device=device)
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
