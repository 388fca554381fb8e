"""Linear layers whose weights lie in memory in the order in which oneDNN multiplies them.

PyTorch passes float32 products to MKL, which rearranges the weights at every call. oneDNN takes them rearranged once
and uses AVX-512 on every vendor's processors; PyTorch's compiler uses the same operators.
Measurements: docs/lab/cpu_products.md.
"""

import torch
from torch import nn

from lmsys_ray.engine import torch_internals


class PrepackedLinear(nn.Module):
    """Replaces an `nn.Linear` of float32 or bfloat16 weights on the CPU, for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch_internals.reorder_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps [..., inputs] to [..., outputs]."""
        return torch_internals.linear(inputs, self.weight, self.bias)
