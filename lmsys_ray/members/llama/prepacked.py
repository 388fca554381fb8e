"""Linear layers whose float32 weights lie in memory the way oneDNN multiplies them.

A model on the CPU spends most of its time in matrix products of the same weights. PyTorch hands float32 products to MKL
and lets it rearrange the weights at every call; oneDNN takes them rearranged once and uses AVX-512 on every vendor's
processors. PyTorch's own compiler uses the same operators.

Measured with SmolLM2-135M, 8 conversations of 517 tokens on average, packs of 2,048 tokens, one thread of an AMD EPYC
(Zen 4) beside other work, in tokens per second of processor time, the mean of two runs where not said otherwise:

    PyTorch's linear layers                          239
    prepacked                                        285    kept; probabilities move by 1e-6
    prepacked, SiLU and product fused into oneDNN's  291    ties the code to one form of feed-forward layer
    prepacked, gate and up as one product            299    modules would have to share state
    the same with Q, K and V as one product          304    likewise; one run

Packs of 512 to 8,192 tokens were within 7 % of each other, 2,048 and 4,096 the fastest. In a profile of the kept form,
products took 72 % of the time, attention 21 % and the rest 7 %, which is all that compiling it could touch (not
tried). Attention by blocks of 128 queries beat PyTorch's own at 330 tokens a row, but not at 64, 128 or 800.
"""

import torch
from torch import nn


class PrepackedLinear(nn.Module):
    """Takes the place of an `nn.Linear` of float32 weights on the CPU, for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps [..., inputs] to [..., outputs]."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")


def prepack(model: nn.Module) -> None:
    """Replaces the plain float32 linear layers of a model on the CPU, where this build of PyTorch has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for name, module in model.named_children():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            setattr(model, name, PrepackedLinear(module))
        else:
            prepack(module)
