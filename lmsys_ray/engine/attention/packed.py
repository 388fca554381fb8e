"""Attention over rows laid end to end: each token sees its own row only, and nothing is padded.

On CUDA devices of capability 8 and above PyTorch's FlashAttention runs over all rows at once. Elsewhere each row is one
causal call of scaled dot-product attention or, on a CPU, of `cpu_blocked`. No mask of [tokens, tokens] is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from lmsys_ray.engine.attention import cpu_blocked
from lmsys_ray.engine.attention.sdpa import row_attention, torch_attention


@dataclass(frozen=True)
class Layout:
    """Where rows laid end to end begin and end."""

    position_ids: torch.Tensor
    """[1, tokens], counted in each row from 0, or from the number of tokens that it shares."""
    cumulative: torch.Tensor
    """[rows + 1], int32: the tokens before each row and, last, of all rows."""
    lengths: tuple[int, ...]
    shared: tuple[int, ...] = ()
    """How many first tokens each row shares with the row before it; they are not laid out again. Empty: none."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths)

    def keywords(self) -> dict[str, Any]:
        """Returns the arguments that a model in transformers passes on to `packed_attention`."""
        return {
            "position_ids": self.position_ids,
            "cu_seq_lens_q": self.cumulative,
            "row_lengths": self.lengths,
            "row_masks": {},
        }


def layout(lengths: Sequence[int], device: torch.device, shared: Sequence[int] = ()) -> Layout:
    """Returns the layout of rows of `lengths` tokens each, not counting those `shared` with the row before.

    Only `within_rows` and `of_last_tokens` take shared tokens, and only where there is no kernel for rows of any
    length.
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
    """Returns causal attention [tokens, heads, dim] of query, of that shape, key and value [tokens, kv_heads, dim]."""
    if has_varlen_kernel(query, value):
        return varlen_attention(query, key, value, rows.cumulative, rows.longest, scaling, window=None)
    return row_by_row(query, _with_shared(key, rows), _with_shared(value, rows), rows.lengths, scaling, None, None)


def of_last_tokens(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: Layout, scaling: float
) -> torch.Tensor:
    """Returns the attention [rows, heads, dim] of each row's last token, query of that shape, to all of its row."""
    if has_varlen_kernel(query, value):
        from torch.nn.attention.varlen import varlen_attn

        grouped = query.shape[1] != key.shape[1]
        single = torch.arange(len(rows.lengths) + 1, dtype=torch.int32, device=query.device)
        ends = single, rows.cumulative, 1, rows.longest
        return cast(torch.Tensor, varlen_attn(query, key, value, *ends, scale=scaling, enable_gqa=grouped))
    outputs = [
        torch_attention(q[None, :, None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], scale=scaling)
        for q, k, v in zip(query, _with_shared(key, rows), _with_shared(value, rows), strict=True)
    ]
    return torch.cat(outputs)[:, :, 0]


def _with_shared(keys: torch.Tensor, rows: Layout) -> Sequence[torch.Tensor]:
    """Returns the keys or values [tokens, kv_heads, dim] of each row, with those that it shares in front."""
    own = keys.split(rows.lengths)
    if not rows.shared:
        return own
    seen: list[torch.Tensor] = []
    for part, shared in zip(own, rows.shared, strict=True):
        seen.append(torch.cat([seen[-1][:shared], part]) if shared else part)
    return seen


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cumulative: torch.Tensor,
    longest: int,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Runs FlashAttention over all rows at once; takes and returns [tokens, heads, dim]."""
    from torch.nn.attention.varlen import varlen_attn

    seen = (-1, 0) if window is None else (window - 1, 0)  # tokens to the left and right; -1 is all
    grouped = query.shape[1] != key.shape[1]
    ends = cumulative, cumulative, longest, longest
    output = varlen_attn(query, key, value, *ends, scale=scaling, window_size=seen, enable_gqa=grouped)
    return cast(torch.Tensor, output)


def row_by_row(
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    lengths: tuple[int, ...],
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Returns causal attention [tokens, heads, dim of the values] of each row of query to its own keys and values."""
    attended = query.new_empty(*query.shape[:-1], values[0].shape[-1])
    for q, k, v, target in zip(query.split(lengths), keys, values, attended.split(lengths), strict=True):
        if window is None and softcap is None and q.shape[-1] == v.shape[-1] and cpu_blocked.is_faster(q, k):
            cpu_blocked.attend(q, k, v, scaling, target)
        else:
            query_, key_, value_ = (part.transpose(0, 1)[None] for part in (q, k, v))
            target.copy_(row_attention(query_, key_, value_, scaling, window, softcap)[0].transpose(0, 1))
    return attended


def has_varlen_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Returns whether FlashAttention takes heads of these sizes: multiples of 8 up to 256, values like queries."""
    size = query.shape[-1]
    fitting = size <= 256 and size % 8 == 0 and value.shape[-1] == size
    return fitting and has_flash_attention(query.device, query.dtype)


def has_flash_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether PyTorch's FlashAttention runs on a device, in a type."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies to a GPU without waiting for the copy; on the CPU the tensor is used as it is."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
