"""The element-wise steps between matrix products, as plain functions.

On a GPU each is compiled into one kernel that reads and writes every value once. On a CPU they run as written, since
compiling would need a C++ compiler there. Measurements: docs/lab/cpu_products.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from shutil import which
from typing import ParamSpec, cast

import torch
from torch.nn.functional import silu

Arguments = ParamSpec("Arguments")

CAN_COMPILE = find_spec("triton") is not None and any(map(which, ("cc", "gcc", "clang")))
"""Whether kernels for a GPU can be compiled, which takes Triton and the C compiler that builds its launchers."""


def compiled_on_gpu(function: Callable[Arguments, torch.Tensor]) -> Callable[Arguments, torch.Tensor]:
    """Returns a function that is compiled for inputs on a GPU where possible; its first argument must be a tensor."""
    compiled = torch.compile(function, dynamic=True) if CAN_COMPILE else function

    @wraps(function)
    def chosen(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> torch.Tensor:
        on_gpu = cast(torch.Tensor, arguments[0]).is_cuda
        return (compiled if on_gpu else function)(*arguments, **keywords)

    return chosen


@compiled_on_gpu
def rms_norm(inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Divides each vector of [..., dim] by its root mean square, in float32 (Zhang and Sennrich 2019)."""
    norms = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
    scales = torch.rsqrt(norms.square() / inputs.shape[-1] + epsilon)
    return (inputs.float() * scales).to(inputs.dtype).mul_(weight)


@compiled_on_gpu
def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates [tokens, heads, dim] by the angles of the positions, [tokens, 1, dim / 2] (RoFormer, Su et al. 2021)."""
    first, second = heads.chunk(2, dim=-1)
    rotated = torch.addcmul(first * cosine, second, sine, value=-1), torch.addcmul(second * cosine, first, sine)
    return torch.cat(rotated, dim=-1)


def rotate_pairs_(heads: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Does as `rotate`, in place, to float32 `heads` in which the dimensions that rotate together are neighbours.

    `angles` [tokens, 1, dim / 2] are complex numbers of length one. On a CPU this is one pass over memory where
    `rotate` makes five.
    """
    torch.view_as_complex(heads.unflatten(-1, (-1, 2))).mul_(angles)
    return heads


@compiled_on_gpu
def gated(gate: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Returns silu(gate) * values (SwiGLU, Shazeer 2020); on a CPU `gate` is overwritten.

    On a GPU that would not be faster, and compiled code could confuse `gate` and `values` where they are halves of one
    tensor.
    """
    return silu(gate) * values if gate.is_cuda else silu(gate, inplace=True).mul_(values)
