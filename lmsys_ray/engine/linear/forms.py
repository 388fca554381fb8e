"""Which linear layers a model computes with, by device and quantization, and how they are put in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lmsys_ray.engine import torch_internals
from lmsys_ray.engine.linear.prepacked import PrepackedLinear
from lmsys_ray.engine.linear.quantized import Fp8Linear, Int8Linear

LinearFactory = Callable[[nn.Linear], nn.Module]
"""Makes the layer that replaces a plain linear layer."""

_MULTIPLES = {"int8_dynamic": 8, "fp8": 16}
"""Numbers of inputs and outputs that a GPU's 8-bit products take are multiples of these; so on a CPU, for equal
results."""


def linear_factory(quantization: str) -> LinearFactory:
    """Returns what replaces plain linear layers; an adapter's stay plain beside weights quantized by a library."""
    factories: dict[str, LinearFactory] = {
        "none": prepacked_where_possible,
        "int8_dynamic": partial(_if_sizes_fit, Int8Linear, accepts_sizes("int8_dynamic")),
        "fp8": partial(_if_sizes_fit, Fp8Linear, accepts_sizes("fp8")),
    }
    return factories.get(quantization, keep_linear)


def accepts_sizes(quantization: str) -> Callable[[int, int], bool]:
    """Returns whether layers of given numbers of inputs and outputs can be quantized to 8 bits, as a function."""
    multiple = _MULTIPLES[quantization]
    return lambda inputs, outputs: inputs % multiple == 0 == outputs % multiple


def _if_sizes_fit(factory: LinearFactory, fits: Callable[[int, int], bool], linear: nn.Linear) -> nn.Module:
    """Returns a layer quantized to 8 bits, or a plain one where its sizes do not allow that."""
    return factory(linear) if fits(linear.in_features, linear.out_features) else prepacked_where_possible(linear)


def keep_linear(linear: nn.Linear) -> nn.Module:
    """Returns the layer itself."""
    return linear


def prepacked_where_possible(linear: nn.Linear) -> nn.Module:
    """Returns a prepacked layer if it is on the CPU in a type that oneDNN multiplies there, else the layer itself."""
    weight = linear.weight
    if weight.device.type != "cpu" or not torch_internals.HAS_ONEDNN:
        return linear
    fast_bfloat16 = weight.dtype == torch.bfloat16 and torch_internals.onednn_multiplies_bfloat16()
    return PrepackedLinear(linear) if weight.dtype == torch.float32 or fast_bfloat16 else linear


def replace_linears(model: nn.Module, factory: LinearFactory) -> None:
    """Replaces every plain linear layer in `model` by what `factory` makes of it, those of GPT-2 transposed."""
    for name, module in model.named_children():
        if type(module) is nn.Linear:
            setattr(model, name, factory(module))
        elif isinstance(module, Conv1D) and factory is not keep_linear:
            setattr(model, name, factory(_linear(module.weight.detach().t().contiguous(), module.bias.detach())))
        else:
            replace_linears(module, factory)


def fused(linears: Sequence[nn.Linear]) -> nn.Linear:
    """Returns one layer that gives the outputs of several, for the same inputs, laid end to end.

    One large product keeps a device busier than several small ones and reads its inputs once.
    """
    biases = [linear.bias for linear in linears]
    weight = torch.cat([linear.weight.detach() for linear in linears])
    if all(bias is None for bias in biases):
        return _linear(weight, None)
    parts = [
        weight.new_zeros(linear.out_features) if bias is None else bias.detach()
        for linear, bias in zip(linears, biases, strict=True)
    ]
    return _linear(weight, torch.cat(parts))


def scaled(linear: nn.Linear, factor: float) -> nn.Linear:
    """Returns a layer whose outputs are multiplied by `factor`."""
    return _changed(linear, lambda outputs: outputs * factor)


def interleaved_rotary(linear: nn.Linear, head_dim: int) -> nn.Linear:
    """Returns a layer whose outputs, in each head, are in the order 0, h, 1, h + 1, ... where h is half of them.

    Rotary positions turn the dimensions i and h + i together; here these are neighbours. Products of a query and a key,
    both in this order, do not change.
    """
    return _changed(linear, lambda outputs: outputs.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2))


def _changed(linear: nn.Linear, change: Callable[[torch.Tensor], torch.Tensor]) -> nn.Linear:
    bias = None if linear.bias is None else change(linear.bias.detach())
    return _linear(change(linear.weight.detach()), bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
