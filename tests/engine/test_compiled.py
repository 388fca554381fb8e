"""What a GPU runs compiled can be traced, for any number of tokens, and computes what runs as written on a CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lmsys_ray.engine import pointwise
from lmsys_ray.engine.linear import quantized


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def heads(tokens: int) -> torch.Tensor:
    """As the decoder cuts them out of one product."""
    return numbers(tokens, 12 * 16).unflatten(-1, (-1, 16))[:, :10]


STEPS: dict[str, tuple[Callable[..., torch.Tensor], Callable[[int], list[Any]]]] = {
    "rms_norm": (pointwise.rms_norm, lambda tokens: [numbers(tokens, 64), numbers(64, seed=1), 1e-5]),
    "rotate": (pointwise.rotate, lambda tokens: [heads(tokens), numbers(tokens, 1, 8), numbers(tokens, 1, 8, seed=1)]),
    "row_scales": (quantized.row_scales, lambda tokens: [numbers(tokens, 64), quantized.INT8_MOST]),
    "int8_codes": (quantized.int8_codes, lambda tokens: [numbers(tokens, 64), torch.full((tokens, 1), 0.02)]),
    "fp8_codes": (quantized.fp8_codes, lambda tokens: [numbers(tokens, 64), torch.full((tokens, 1), 0.02)]),
    "rescaled": (
        quantized.rescaled,
        lambda tokens: [numbers(tokens, 64).mul(99).int(), torch.rand(tokens, 1), torch.rand(64)],
    ),
}


@pytest.mark.parametrize("name", STEPS)
@torch.inference_mode()
def test_a_compiled_step_computes_what_it_says(name: str) -> None:
    torch._dynamo.reset()
    step, arguments = STEPS[name]
    compiled = torch.compile(step.__wrapped__, dynamic=True, backend="aot_eager", fullgraph=True)
    for tokens in (5, 70, 1):
        given = arguments(tokens)
        expected = step(*(part.clone() if isinstance(part, torch.Tensor) else part for part in given))
        torch.testing.assert_close(compiled(*given).float(), expected.float())


def test_no_step_that_is_compiled_changes_what_it_is_given() -> None:
    for step, arguments in STEPS.values():
        given = arguments(7)
        before = [part.clone() for part in given if isinstance(part, torch.Tensor)]
        step(*given)
        after = [part for part in given if isinstance(part, torch.Tensor)]
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
