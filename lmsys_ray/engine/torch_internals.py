"""The private interfaces of PyTorch that this package uses, and the public ones that replace them where one is missing.

Each is looked up once, when this module is loaded. The replacements give the same numbers up to rounding, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

Product = Callable[..., torch.Tensor]


def plain_linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The public form of `linear`."""
    return functional.linear(inputs, weight, bias)


def plain_int_mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The public form of `int_mm`; exact, since float64 holds every such sum."""
    return (left.double() @ right.double()).to(torch.int32)


def plain_scaled_mm(
    left: torch.Tensor,
    right: torch.Tensor,
    left_scales: torch.Tensor,
    right_scales: torch.Tensor,
    *,
    out_dtype: torch.dtype,
    use_fast_accum: bool = False,
) -> torch.Tensor:
    """The public form of `scaled_mm`; the sums are float32, whatever `use_fast_accum` says."""
    return (left.float() @ right.float() * left_scales * right_scales).to(out_dtype)


def _onednn(name: str) -> Product | None:
    return getattr(torch.ops.mkldnn, name, None) if torch.backends.mkldnn.is_available() else None


_linear_pointwise = _onednn("_linear_pointwise")
_reorder_linear_weight = _onednn("_reorder_linear_weight")
_is_bf16_supported: Callable[[], bool] | None = _onednn("_is_mkldnn_bf16_supported")  # type: ignore[assignment]

HAS_ONEDNN = _linear_pointwise is not None and _reorder_linear_weight is not None
"""Whether oneDNN's products can be called directly, so that weights may be reordered for them."""

HAS_SCALED_MM = hasattr(torch, "_scaled_mm")
"""Whether this release of PyTorch has products of fp8 numbers."""

int_mm: Product = getattr(torch, "_int_mm", plain_int_mm)
"""Multiplies int8 [rows, inner] by int8 [inner, columns]; returns int32 [rows, columns]."""

scaled_mm: Product = getattr(torch, "_scaled_mm", plain_scaled_mm)
"""Multiplies fp8 [rows, inner] by fp8 [inner, columns], scaled by rows [rows, 1] and columns [1, columns]."""


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns the product of [..., inputs] and `weight` [outputs, inputs], reordered or not, by oneDNN if present."""
    if _linear_pointwise is None:
        return plain_linear(inputs, weight, bias)
    return _linear_pointwise(inputs, weight, bias, "none", [], "")


def reorder_weight(weight: torch.Tensor, tokens: int | None = None) -> torch.Tensor:
    """Returns `weight` [outputs, inputs] as oneDNN lays it out, for products of about `tokens` rows where given."""
    return weight if not HAS_ONEDNN or _reorder_linear_weight is None else _reorder_linear_weight(weight, tokens)


def onednn_multiplies_bfloat16() -> bool:
    """Returns whether oneDNN multiplies bfloat16 on this CPU without converting every weight at each call."""
    if _is_bf16_supported is not None:
        return _is_bf16_supported()
    abilities = torch.cpu.get_capabilities()
    return HAS_ONEDNN and bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
