"""Attention over rows laid end to end: each token sees its own row only, and nothing is padded.

Registered with transformers under `PACKED`; a model that uses it is called with the keyword arguments of a `Layout`,
which follow FlashAttention's variable-length interface. On CUDA devices of capability 8 and above PyTorch's own
FlashAttention runs over all rows at once; elsewhere each row is one causal call of scaled dot-product attention, or on
a CPU of `query_blocks`. All do without a mask of [tokens, tokens].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface

from lmsys_ray.members.llama import flex, query_blocks
from lmsys_ray.members.llama.row_attention import by_torch, row_attention

PACKED = "packed_rows"
PADDED = "padded_rows"


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
            "row_masks": {},
        }


def implementation(packed: bool, chosen: str, device: torch.device, dtype: torch.dtype) -> str:
    """Returns the name of the attention that a model in transformers should use, which now uses `chosen`."""
    if packed:
        return PACKED
    by_torch_alone = device.type == "cuda" and not _has_flash_attention(device, dtype)
    return PADDED if chosen == "sdpa" and by_torch_alone else chosen


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
    if _has_varlen_kernel(query, value):
        return _varlen_attention(query, key, value, rows.cumulative, rows.longest, scaling, window=None)
    return _row_by_row(query, _seen(key, rows), _seen(value, rows), rows.lengths, scaling, None, None)


def of_last_tokens(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Layout, scaling: float
) -> torch.Tensor:
    """Attention of each row's last token, query [rows, heads, dim], to all of its row; returns as query."""
    if _has_varlen_kernel(query, value):
        from torch.nn.attention.varlen import varlen_attn

        grouped = query.shape[1] != key.shape[1]
        single = torch.arange(len(rows.lengths) + 1, dtype=torch.int32, device=query.device)
        ends = single, rows.cumulative, 1, rows.longest
        return cast(torch.Tensor, varlen_attn(query, key, value, *ends, scale=scaling, enable_gqa=grouped))
    outputs = [
        by_torch(q[None, :, None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], scale=scaling)
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
    attention_mask: torch.Tensor | None,
    *,
    row_lengths: tuple[int, ...],
    cu_seq_lens_q: torch.Tensor,
    row_masks: dict[int | None, BlockMask],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of query [1, heads, tokens, dim], key and value [1, kv_heads, tokens, dim].

    Returns [1, tokens, heads, dim], the layout that transformers expects back. `row_masks` keeps from layer to layer
    what FlexAttention needs to know of the rows, for each window.
    """
    _check_computed_here(module, attention_mask, others)
    window = sliding_window if sliding_window is not None and max(row_lengths) > sliding_window else None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if softcap is None and _has_varlen_kernel(query, value):
        attended = _varlen_attention(query, key, value, cu_seq_lens_q, max(row_lengths), scaling, window)
    elif softcap is not None and flex.serves(query):
        if window not in row_masks:
            row_masks[window] = flex.within_rows(cu_seq_lens_q, len(query), window)
        attended = flex.attend(query, key, value, row_masks[window], scaling, softcap)
    else:
        keys, values = key.split(row_lengths), value.split(row_lengths)
        attended = _row_by_row(query, keys, values, row_lengths, scaling, window, softcap)
    return attended[None], None


def padded_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of rows padded on the right: query [rows, heads, tokens, dim], key and value with `kv_heads`.

    Returns [rows, tokens, heads, dim], the layout that transformers expects back. It takes the place of "sdpa" of
    transformers 5.23, which on a GPU without FlashAttention, a T4 say, ends at the slow kernel that `by_torch` avoids.
    """
    _check_computed_here(module, attention_mask, others)
    window = sliding_window if sliding_window is not None and query.shape[2] > sliding_window else None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return row_attention(query, key, value, scaling, window, softcap).transpose(1, 2), None


def _check_computed_here(module: torch.nn.Module, mask: object, others: dict[str, Any]) -> None:
    """Raises `NotImplementedError` where a model masks attention itself, adds to its scores, or looks ahead."""
    unknown = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    unknown += ["attention_mask"] if mask is not None else []
    looks_ahead = others.get("is_causal", getattr(module, "is_causal", True)) is False
    if unknown or looks_ahead:
        what = unknown[0] if unknown else "tokens that see what follows them"
        raise NotImplementedError(f"{type(module).__name__} attends with {what}, which is not computed here")


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
    """Causal attention of each row of query [tokens, heads, dim] to its own keys and values.

    Returns [tokens, heads, dim of the values].
    """
    attended = query.new_empty(*query.shape[:-1], values[0].shape[-1])
    for q, k, v, target in zip(query.split(lengths), keys, values, attended.split(lengths), strict=True):
        if window is None and softcap is None and q.shape[-1] == v.shape[-1] and query_blocks.gains(q, k):
            query_blocks.attend(q, k, v, scaling, target)
        else:
            query_, key_, value_ = (part.transpose(0, 1)[None] for part in (q, k, v))
            target.copy_(row_attention(query_, key_, value_, scaling, window, softcap)[0].transpose(0, 1))
    return attended


def _has_varlen_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Returns whether FlashAttention takes heads of these sizes: multiples of 8 up to 256, values like queries."""
    size = query.shape[-1]
    fitting = size <= 256 and size % 8 == 0 and value.shape[-1] == size
    return fitting and _has_flash_attention(query.device, query.dtype)


def _has_flash_attention(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies to a GPU without waiting for the copy; on the CPU the tensor is used as it is."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


# Without masks of the same names, for which transformers would look into position_ids and wait for the GPU each time.
AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(PADDED, padded_attention)
