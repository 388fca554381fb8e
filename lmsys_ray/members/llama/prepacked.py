"""Linear layers whose weights lie in memory the way oneDNN multiplies them.

A model on the CPU spends most of its time in matrix products of the same weights. PyTorch hands float32 products to MKL
and lets it rearrange the weights at every call; oneDNN takes them rearranged once and uses AVX-512 on every vendor's
processors. PyTorch's own compiler uses the same operators.

Measured with SmolLM2-135M, 8 conversations cut at 512 tokens (325 on average), one thread of an AMD EPYC (Zen 4) beside
other work, in tokens per second of processor time, medians of two rounds whose sides took turns; the share is that of
the products' own speed in the same round (100 GFLOP/s):

    transformers' layers, these products, packs of 4,096 tokens     353    79 %
    the same, packs of 1,024                                        361    80 %
    `decoder`, packs of 512                                         368    82 %
    `decoder`, packs of 1,024                                       384    86 %          probabilities move by 2e-7
    `decoder`, packs of 2,048                                       383    85 %    kept, see below
    `decoder`, 1,024, weights in bfloat16                           606            probabilities move by 4e-3
    `decoder`, 1,024, quantization int8_dynamic                     757            probabilities move by 4e-2

Tried and left out, for 1,024 tokens: gate and up as one product, whose halves then lie interleaved in memory (39.6 ms
with SiLU and the multiplication, where two products take 36.2); SiLU and the multiplication inside oneDNN's products
(38.5 ms); residuals inside them (17.7 ms with a product that takes 17.5 beside an addition); norm weights folded into
the products behind (0.1 ms a layer); larger thresholds of malloc (as many tokens per second). Kept since: attention in
blocks of queries (see `query_blocks`), and rotary positions in place. Tried again on an AMD EPYC (Zen 5), 1,024 tokens,
one thread: gate, up, SiLU and the multiplication 14.6 ms as it is, of which the two products take 13.9; SiLU inside the
product 14.5 ms, both inside 15.2; down and the residual 7.04 ms, inside 7.23; packs of 384 to 2,048 tokens are as fast
as each other. There products take 89 % of the time, those of attention among them, and the rest is all that compiling
could touch, at the price of a C++ compiler on every machine.

Sizes of packs again, on two threads of an AMD EPYC (Zen 4), 48 conversations, seconds against packs of 1,024 tokens in
14 rounds whose sides took turns (standard errors 0.006): 1,536 tokens 0.991, 2,200 0.980, 3,072 0.981. A layer's
weights come from memory, and large packs read them less often: the products of thirty feed-forward layers run at 103
GFLOP/s with 960 tokens and at 106.5 with 1,920. What follows attention in blocks of a pack's tokens, so that
activations stay in the caches: 5 % faster over sixteen feed-forward layers by themselves, 0 to 3 % over thirty, 1 to 6
% slower in the model; in blocks of gate's and up's outputs, whose products with down are summed up, 0.99 (960 tokens)
and 1.01 (1,920) of the time. Weights and activations on huge pages are as fast.
"""

import torch
from torch import nn


class PrepackedLinear(nn.Module):
    """Takes the place of an `nn.Linear` of float32 or bfloat16 weights on the CPU, for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps [..., inputs] to [..., outputs]."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
