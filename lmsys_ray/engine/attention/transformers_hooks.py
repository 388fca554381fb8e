"""The attention that models in transformers call here, registered with it under `PACKED` and `PADDED`.

Both refuse masks and biases that they would not apply. The keyword arguments are those of `Layout.keywords`.
"""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface

from lmsys_ray.engine.attention import flex
from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.attention.sdpa import row_attention

PACKED = "packed_rows"
PADDED = "padded_rows"


def implementation(packed: bool, chosen: str, device: torch.device, dtype: torch.dtype) -> str:
    """Returns the name of the attention that a model in transformers should use; `chosen` is what it uses now."""
    if packed:
        return PACKED
    without_flash = device.type == "cuda" and not attention.has_flash_attention(device, dtype)
    return PADDED if chosen == "sdpa" and without_flash else chosen


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

    Returns [1, tokens, heads, dim], as transformers expects. `row_masks` keeps the masks of FlexAttention, one for each
    window, from layer to layer.
    """
    _check_computed_here(module, attention_mask, others)
    window = sliding_window if sliding_window is not None and max(row_lengths) > sliding_window else None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if softcap is None and attention.has_varlen_kernel(query, value):
        attended = attention.varlen_attention(query, key, value, cu_seq_lens_q, max(row_lengths), scaling, window)
    elif softcap is not None and flex.is_supported(query):
        if window not in row_masks:
            row_masks[window] = flex.within_rows(cu_seq_lens_q, len(query), window)
        attended = flex.attend(query, key, value, row_masks[window], scaling, softcap)
    else:
        keys, values = key.split(row_lengths), value.split(row_lengths)
        attended = attention.row_by_row(query, keys, values, row_lengths, scaling, window, softcap)
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

    Returns [rows, tokens, heads, dim], as transformers expects. It replaces "sdpa" of transformers 5.23, which on a GPU
    without FlashAttention (a T4, say) takes the kernel that `torch_attention` avoids.
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


# No mask functions are registered under these names: transformers would read position_ids and wait for the GPU each
# time.
AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(PADDED, padded_attention)
