"""Which form a model's linear layers take, by device and quantization, and how they are put in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lmsys_ray.members.llama.prepacked import PrepackedLinear
from lmsys_ray.members.llama.quantized import Fp8Linear, Int8Linear

Form = Callable[[nn.Linear], nn.Module]
"""Makes what takes the place of a plain linear layer."""

_MULTIPLES = {"int8_dynamic": 8, "fp8": 16}
"""Of inputs and outputs: the sizes that a GPU's products of 8-bit numbers take. A CPU keeps to them, for like numbers.
"""


def form_for(quantization: str) -> Form:
    """Returns the form of plain linear layers; beside weights that a library quantized, an adapter's stay plain."""
    forms: dict[str, Form] = {
        "none": prepacked_where_possible,
        "int8_dynamic": partial(_where_it_fits, Int8Linear, reached_by("int8_dynamic")),
        "fp8": partial(_where_it_fits, Fp8Linear, reached_by("fp8")),
    }
    return forms.get(quantization, as_it_is)


def reached_by(quantization: str) -> Callable[[int, int], bool]:
    """Returns which numbers of inputs and outputs a layer may have to take a form of 8 bits."""
    multiple = _MULTIPLES[quantization]
    return lambda inputs, outputs: inputs % multiple == 0 == outputs % multiple


def _where_it_fits(form: Form, fits: Callable[[int, int], bool], linear: nn.Linear) -> nn.Module:
    """Returns a layer in a form of 8 bits, or as it is where its sizes do not allow that."""
    return form(linear) if fits(linear.in_features, linear.out_features) else prepacked_where_possible(linear)


def as_it_is(linear: nn.Linear) -> nn.Module:
    return linear


def prepacked_where_possible(linear: nn.Linear) -> nn.Module:
    """Returns the layer as oneDNN wants it, if it lies on the CPU in a number format that oneDNN multiplies there."""
    weight = linear.weight
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return linear
    fast_bfloat16 = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return PrepackedLinear(linear) if weight.dtype == torch.float32 or fast_bfloat16 else linear


def replace_linears(model: nn.Module, form: Form) -> None:
    """Puts `form` in the place of every plain linear layer below `model`; those of GPT-2 are turned over for it."""
    for name, module in model.named_children():
        if type(module) is nn.Linear:
            setattr(model, name, form(module))
        elif isinstance(module, Conv1D) and form is not as_it_is:
            setattr(model, name, form(_linear(module.weight.detach().t().contiguous(), module.bias.detach())))
        else:
            replace_linears(module, form)


def side_by_side(linears: Sequence[nn.Linear]) -> nn.Linear:
    """Returns one layer that gives the outputs of several of the same inputs, laid end to end.

    One large product keeps a device busier than several small ones, and reads its inputs once.
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
    """Returns a layer that gives `factor` times the outputs."""
    return _changed(linear, lambda outputs: outputs * factor)


def with_pairs_together(linear: nn.Linear, head_dim: int) -> nn.Linear:
    """Returns a layer whose outputs, in each head, stand in the order 0, h, 1, h + 1, ... where h is half of them.

    Rotary positions turn the dimensions i and h + i together. Products of a query and a key, both in this order, stay
    what they were.
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
