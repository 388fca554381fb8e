"""Prepacked layers compute what the plain ones do."""

import pytest
import torch
from torch import nn

from lmsys_ray.engine.linear.forms import prepacked_where_possible, replace_linears
from lmsys_ray.engine.linear.prepacked import PrepackedLinear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (1, 700, 48), (3, 5, 48)])
@torch.inference_mode()
def test_a_prepacked_layer_equals_the_plain_one(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(48, 20, bias=bias), torch.randn(shape)
    torch.testing.assert_close(PrepackedLinear(linear)(inputs), linear(inputs), atol=1e-5, rtol=1e-5)


def test_only_plain_float32_layers_are_replaced() -> None:
    class Other(nn.Linear):
        """As LoRA layers and quantized ones are."""

    model = nn.ModuleDict(
        {"plain": nn.Linear(4, 4), "halved": nn.Linear(4, 4).half(), "other": Other(4, 4), "norm": nn.LayerNorm(4)}
    )
    nested = nn.Sequential(nn.Sequential(model, nn.Linear(4, 4)))
    replace_linears(nested, prepacked_where_possible)
    assert isinstance(model["plain"], PrepackedLinear)
    assert isinstance(nested[0][1], PrepackedLinear)
    assert type(model["halved"]) is nn.Linear
    assert type(model["other"]) is Other
