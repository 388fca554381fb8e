"""How fast the device multiplies matrices of the model's shapes and does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from lmsys_ray.benchmark.side_process import CLOCKS, Clock, Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.engine import cpu, devices, torch_internals
from lmsys_ray.engine.linear.quantized import FAST_SUMS

Product = Callable[[], torch.Tensor]

_SECONDS = 0.15
"""For how long each product is repeated."""


def load(task: BenchmarkTask, numbers: str) -> Side:
    """Returns a side that measures the products of one layer in `numbers` (float32, bfloat16, float16, int8 or fp8).

    It reports operations per second over a whole layer, each product by the fastest route in PyTorch, and those with
    the same inputs as one product where that is faster.
    """
    cpu.use_cores(task.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokens, clock = task.batch_tokens, CLOCKS[task.clock]
    groups = task.shape().products
    work = sum(2.0 * tokens * inputs * outputs for group in groups for inputs, outputs in group)

    def seconds(inputs: int, outputs: int) -> float:
        return min(_seconds(route, device, clock) for route in routes(tokens, inputs, outputs, numbers, device))

    def run() -> dict[str, Any]:
        fastest = 0.0
        for group in groups:
            together = seconds(group[0][0], sum(outputs for _, outputs in group))
            alone = {shape: seconds(*shape) for shape in set(group)} if len(group) > 1 else {group[0]: together}
            fastest += min(together, sum(alone[shape] for shape in group))
        return {"operations_per_second": work / fastest}

    return run


def routes(tokens: int, inputs: int, outputs: int, numbers: str, device: torch.device) -> list[Product]:
    """Returns the ways to multiply [tokens, inputs] by weights [outputs, inputs], with operands in `numbers`."""
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(tokens, inputs, generator=generator, device=device)
    weight = torch.randn(outputs, inputs, generator=generator, device=device)
    if numbers == "int8":
        codes, weight_codes = ((matrix * 30).to(torch.int8) for matrix in (left, weight))
        return [lambda: torch_internals.int_mm(codes, weight_codes.t())]
    if numbers == "fp8":
        narrow, narrow_weight = (matrix.to(torch.float8_e4m3fn) for matrix in (left, weight))
        one = torch.ones((), device=device)
        product = partial(torch_internals.scaled_mm, out_dtype=torch.bfloat16, use_fast_accum=FAST_SUMS)
        return [lambda: product(narrow, narrow_weight.t(), one, one)]
    dtype = devices.choose_dtype(numbers)
    left, weight = left.to(dtype), weight.to(dtype)
    found: list[Product] = [lambda: functional.linear(left, weight)]
    if device.type == "cpu" and torch_internals.HAS_ONEDNN:
        packed = torch_internals.reorder_weight(weight, tokens)
        found.append(lambda: torch_internals.linear(left, packed, None))
    return found


def _seconds(product: Product, device: torch.device, clock: Clock) -> float:
    """Returns the seconds of one product, the median of several rounds."""
    with torch.inference_mode():
        product()
        first = _timed(product, 1, device, clock)
        times = max(1, int(_SECONDS / 4 / max(first, 1e-6)))
        return median(_timed(product, times, device, clock) for _ in range(4))


def _timed(product: Product, times: int, device: torch.device, clock: Clock) -> float:
    started = clock()
    for _ in range(times):
        product()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - started) / times
