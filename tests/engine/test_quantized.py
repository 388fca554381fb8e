"""8-bit products: how far they may be from what they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from lmsys_ray.engine.linear import quantized
from lmsys_ray.engine.linear.forms import linear_factory, replace_linears

MATRICES = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e4, 1e4, width=32)
).map(torch.from_numpy)


@given(MATRICES)
def test_int8_codes_are_within_half_a_step(matrix: torch.Tensor) -> None:
    scales = quantized.row_scales(matrix, quantized.INT8_MOST)
    codes = quantized.int8_codes(matrix, scales)
    assert codes.dtype == torch.int8
    assert codes.abs().max() <= 127
    assert ((codes.float() * scales - matrix).abs() <= scales * 0.5001).all()


@given(MATRICES)
def test_fp8_codes_are_within_a_sixteenth_of_each_value(matrix: torch.Tensor) -> None:
    scales = quantized.row_scales(matrix, quantized.FP8_MOST)
    restored = quantized.fp8_codes(matrix, scales).float() * scales
    assert torch.isfinite(restored).all()
    # Of e4m3, 3 bits follow the leading one; below its smallest normal number, 2 ** -6, steps are 2 ** -9.
    assert ((restored - matrix).abs() <= (matrix.abs() / 16).clamp(min=1e-30) * 1.001 + scales * 2**-10).all()


@pytest.mark.parametrize(("quantization", "bound"), [("int8_dynamic", 0.015), ("fp8", 0.04)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (70, 64), (2, 33, 64)])
@torch.inference_mode()
def test_a_layer_comes_close_to_the_plain_one(
    quantization: str, bound: float, bias: bool, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 32, bias=bias), torch.randn(shape)
    expected = linear(inputs)
    found = linear_factory(quantization)(linear)(inputs)
    assert found.dtype == inputs.dtype
    assert found.shape == expected.shape
    assert (found - expected).norm() < bound * expected.norm()


@torch.inference_mode()
def test_a_token_is_rounded_by_itself() -> None:
    """A huge value in one row must not coarsen another, as one scale for the whole batch would."""
    torch.manual_seed(0)
    inputs = torch.randn(40, 64)
    layer = quantized.Int8Linear(nn.Linear(64, 32))
    before = layer(inputs)
    inputs[7] *= 1e4
    after = layer(inputs)
    others = torch.arange(40) != 7
    assert torch.equal(before[others], after[others])


def test_weights_take_a_byte_each() -> None:
    for layer in (quantized.Int8Linear(nn.Linear(64, 32)), quantized.Fp8Linear(nn.Linear(64, 32))):
        assert layer.weight.element_size() == 1
        assert layer.weight.shape == (32, 64)


def test_beside_weights_that_a_library_quantized_plain_layers_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    for quantization in ("int8", "nf4", "stored"):
        replace_linears(model, linear_factory(quantization))
        assert type(model[0]) is nn.Linear
