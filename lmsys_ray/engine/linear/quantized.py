"""Linear layers that multiply 8-bit numbers: weights rounded once by output channel, activations per call by token.

Both are rounded to the nearest and scaled so that the largest value of a channel or token takes the largest code:
dynamic W8A8 quantization as in LLM.int8 (Dettmers et al. 2022) without its outliers, and FP8 (e4m3) as in Micikevicius
et al. 2022. At best twice the speed of 16-bit products, with half the memory for weights.
"""

from __future__ import annotations

import torch
from torch import nn

from lmsys_ray.engine import torch_internals
from lmsys_ray.engine.pointwise import compiled_on_gpu

INT8_MOST = 127.0
FP8 = torch.float8_e4m3fn
FP8_MOST = torch.finfo(FP8).max

FAST_SUMS = True
"""Whether Hopper's fp8 products sum in the tensor cores, faster and less exactly, as torchao does by default for
inference (Float8MMConfig). Other devices ignore it. Not measured yet."""

# cuBLAS multiplies int8 for more than 16 rows only.
_FEWEST_ROWS = 32
_SMALLEST = 1e-12


@compiled_on_gpu
def row_scales(matrix: torch.Tensor, most: float) -> torch.Tensor:
    """Returns float32 [rows, 1] that map the largest magnitude of each row of [rows, columns] to `most`."""
    return matrix.abs().amax(dim=-1, keepdim=True).float().clamp(min=_SMALLEST) / most


@compiled_on_gpu
def int8_codes(matrix: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Returns int8 [rows, columns]; times `scales` [rows, 1] they equal `matrix` to half a step."""
    return (matrix.float() / scales).round().to(torch.int8)


@compiled_on_gpu
def fp8_codes(matrix: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Returns e4m3 [rows, columns]; times `scales` [rows, 1] they equal `matrix` to 1/16 of each value."""
    return (matrix.float() / scales).to(FP8)


@compiled_on_gpu
def rescaled(sums: torch.Tensor, token_scales: torch.Tensor, channel_scales: torch.Tensor) -> torch.Tensor:
    """Returns float32 [tokens, outputs] of int32 sums of products of codes; the scales are [tokens, 1], [outputs]."""
    return sums * token_scales * channel_scales


class Int8Linear(nn.Module):
    """Replaces an `nn.Linear`, for inference only: int8 products with sums in int32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scales = row_scales(linear.weight.detach(), INT8_MOST)
        self.weight = int8_codes(linear.weight.detach(), scales)
        self.scales = scales.flatten()
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps [..., inputs] to [..., outputs]."""
        rows = inputs.flatten(0, -2)
        scales = row_scales(rows, INT8_MOST)
        codes = int8_codes(rows, scales)
        if missing := max(0, _FEWEST_ROWS - len(codes)):
            codes = nn.functional.pad(codes, (0, 0, 0, missing))
        sums = torch_internals.int_mm(codes, self.weight.t())[: len(rows)]
        outputs = rescaled(sums, scales, self.scales).to(inputs.dtype)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.unflatten(0, inputs.shape[:-1])


class Fp8Linear(nn.Module):
    """Replaces an `nn.Linear`, for inference only: e4m3 products with sums in float32.

    GPUs of capability 8.9 and above have such products; a CPU computes the same numbers slowly.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scales = row_scales(linear.weight.detach(), FP8_MOST)
        self.weight = fp8_codes(linear.weight.detach(), scales)
        self.scales = scales.t().contiguous()
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps [..., inputs] to [..., outputs]."""
        rows = inputs.flatten(0, -2)
        scales = row_scales(rows, FP8_MOST)
        codes, weight = fp8_codes(rows, scales), self.weight.t()
        outputs = torch_internals.scaled_mm(
            codes, weight, scales, self.scales, out_dtype=torch.bfloat16, use_fast_accum=FAST_SUMS
        )
        outputs = outputs.to(inputs.dtype)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.unflatten(0, inputs.shape[:-1])
