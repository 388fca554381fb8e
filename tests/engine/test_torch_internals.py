"""Private interfaces of PyTorch, and that everything still computes where a release lacks them."""

import importlib.util
from types import ModuleType

import pytest
import torch
from torch.nn import functional

from lmsys_ray.engine import torch_internals


def loaded_anew() -> ModuleType:
    """The module as a process has it whose PyTorch is the one that the test left."""
    spec = importlib.util.find_spec(torch_internals.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_release_has_all_of_them() -> None:
    assert torch.backends.mkldnn.is_available() == torch_internals.HAS_ONEDNN
    assert torch_internals.HAS_SCALED_MM
    assert torch_internals.int_mm is torch._int_mm
    assert torch_internals.scaled_mm is torch._scaled_mm


@pytest.mark.parametrize("bias", [None, torch.arange(20.0)])
def test_linear_equals_the_public_product(bias: torch.Tensor | None) -> None:
    inputs, weight = torch.randn(7, 48), torch.randn(20, 48)
    expected = functional.linear(inputs, weight, bias)
    reordered = torch_internals.reorder_weight(weight)
    torch.testing.assert_close(torch_internals.linear(inputs, reordered, bias), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch_internals.plain_linear(inputs, weight, bias), expected)


def test_without_onednn_linear_layers_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    module = loaded_anew()
    inputs, weight = torch.randn(7, 48), torch.randn(20, 48)
    assert not module.HAS_ONEDNN
    assert module.reorder_weight(weight) is weight
    assert torch.equal(module.linear(inputs, weight, None), functional.linear(inputs, weight))
    assert not module.onednn_multiplies_bfloat16()


def test_without_int_mm_the_sums_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((40, 3000), (3000, 16)))
    expected = torch_internals.int_mm(left, right)
    monkeypatch.delattr(torch, "_int_mm")
    found = loaded_anew().int_mm(left, right)
    assert found.dtype == torch.int32
    assert torch.equal(found, expected)


def test_without_scaled_mm_the_products_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [torch.randn(32, 64).to(torch.float8_e4m3fn) for _ in range(2)]
    scales = [torch.rand(32, 1), torch.rand(1, 32)]
    expected = torch_internals.scaled_mm(codes[0], codes[1].t(), *scales, out_dtype=torch.bfloat16)
    monkeypatch.delattr(torch, "_scaled_mm")
    module = loaded_anew()
    found = module.scaled_mm(codes[0], codes[1].t(), *scales, out_dtype=torch.bfloat16, use_fast_accum=True)
    assert not module.HAS_SCALED_MM
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
