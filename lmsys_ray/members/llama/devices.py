"""Which device, number type and quantization a replica uses, and how many cores."""

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, cast

import torch

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.quiet import first_line
from lmsys_ray.members.llama.weights import Weights

Quantization = Literal["none", "int8", "nf4", "int8_dynamic", "fp8", "stored"]
"""`int8` and `nf4` are bitsandbytes'; `stored`: the checkpoint itself is quantized."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The types that the setting `dtype` names, beside `auto`."""

CPU_BATCH_TOKENS = 2048
"""Budget of a micro-batch without a GPU; see `prepacked` for what was tried."""

FIXED_BATCH_TOKENS = 2048
"""Budget of a micro-batch wherever what a row gets depends on it: the same on every device, and small enough for all.
"""

MOST_BATCH_TOKENS = 16384
"""Above this a GPU's matrix products get no faster (an 8-billion-parameter model keeps an H100 busy for 0.3 s)."""

_LEAST_BATCH_TOKENS = 512

_FAMILY_OF_ZEN_5 = 26

# Weights may take this share of the memory; activations of a micro-batch and the libraries need the rest.
_WEIGHT_SHARE = 0.8

BYTES_PER_WEIGHT = {"int8": 1.0, "nf4": 0.5625}
"""Of a weight that bitsandbytes quantizes; nf4 keeps a float32 scale for 64 of them."""


def use_cores(threads: int) -> None:
    """Lets torch compute on `threads` cores.

    Ray sets OMP_NUM_THREADS to the CPUs that an actor reserves, which is 1 or none for the one that holds the model.
    """
    torch.set_num_threads(threads)


@cache
def mkl_is_fast() -> bool:
    """Returns whether MKL, by which PyTorch multiplies float32 matrices, gets out of this processor what is in it."""
    path = Path("/proc/cpuinfo")
    processor = path.read_text(encoding="utf-8") if path.is_file() else ""
    return torch.backends.mkl.is_available() and not wider_than_mkl(processor)


def wider_than_mkl(processor: str) -> bool:
    """Returns whether a processor, as Linux describes it, has vectors wider than MKL uses there.

    For AMD's processors MKL has kernels of 256 bits alone; from Zen 5 (family 26) on they compute on 512.
    """
    family = re.search(r"^vendor_id\s*: AuthenticAMD\ncpu family\s*: (\d+)$", processor, re.MULTILINE)
    return family is not None and int(family[1]) >= _FAMILY_OF_ZEN_5


def share_of_cores(threads: int | Literal["auto"], replicas: int | Literal["auto"]) -> int:
    """Returns how many cores a replica computes on: `threads`, or its even share of those this process may use.

    As many replicas as asked for are taken to be on this machine; where they are spread over several, name `threads`.
    """
    if threads != "auto":
        return threads
    cores = len(os.sched_getaffinity(0))
    return cores if replicas == "auto" else max(1, cores // replicas)


def choose_dtype(setting: str, trained: str | None = None) -> torch.dtype:
    """Returns the type of weights and activations of a scorer.

    `auto`: the one in which the adapter was `trained`, where that is known and this device computes in it; else
    bfloat16 where the GPU computes in it, float16 on other GPUs, float32 without one.
    """
    if setting != "auto":
        return DTYPES[setting]
    if trained is not None and computes_in(trained):
        return DTYPES[trained]
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if computes_in("bfloat16") else torch.float16  # T4 has only float16


def computes_in(dtype: str, device: Literal["cuda", "cpu"] | None = None) -> bool:
    """Returns whether a GPU, or a CPU, multiplies matrices in a type, instead of emulating it several times slower.

    `device` None: the GPU where there is one.
    """
    if dtype == "float32":
        return True
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return dtype == "float16" or torch.cuda.get_device_capability() >= (8, 0)
    abilities = torch.cpu.get_capabilities()
    return dtype == "bfloat16" and bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def other_dtype(chosen: torch.dtype, trained: str | None) -> str | None:
    """Returns a sentence where a scorer computes in another type than its adapter was trained in; None where not."""
    if trained is None or chosen == DTYPES[trained]:
        return None
    return (
        f"trained in {trained}, scored in {str(chosen).removeprefix('torch.')}: probabilities differ from those of the "
        "training by some thousandths; set dtype to the former where the device computes in it"
    )


def choose_quantization(setting: str, weights: Weights, memory: int, width: int = 2) -> Quantization:
    """Returns the quantization of a model of `weights` on GPUs of `memory` bytes in all (0: no GPU).

    The plain type, of `width` bytes, wherever it fits: bitsandbytes saves memory, not time. `int8_dynamic` and `fp8`
    save time at the cost of accuracy, so that they are taken by name alone. Raises `UsageError` for `fp8` on a GPU
    that has no such products.
    """
    if setting == "fp8" and torch.cuda.is_available():
        _check_fp8()
    if setting != "auto":
        return cast(Quantization, setting)
    choices: tuple[Quantization, ...] = ("none", "int8", "nf4")
    needed = {choice: weights.bytes(BYTES_PER_WEIGHT.get(choice, width), width) for choice in choices}
    return next((choice for choice in choices if needed[choice] <= memory * _WEIGHT_SHARE), "nf4") if memory else "none"


def _check_fp8() -> None:
    name = torch.cuda.get_device_name()
    if torch.cuda.get_device_capability() < (8, 9):
        raise UsageError(f"quantization: {name} has no fp8 products (capability 8.9 and above); take int8_dynamic")
    if (reason := fp8_failure()) is not None:
        raise UsageError(
            f"quantization: torch {torch.__version__} has no fp8 products with a scale for each row on {name} "
            f"({reason}); take int8_dynamic"
        )


def fp8_failure() -> str | None:
    """Returns why a small product as those of `quantized.Fp8Linear` fails on this GPU; None where it does not.

    Which GPUs have them depends on the versions of torch and cuBLAS: those of capability 12.0 lacked them for long.
    """
    codes = torch.ones(256, 256, device="cuda").to(torch.float8_e4m3fn)
    scales = torch.ones(256, 1, device="cuda")
    try:
        torch._scaled_mm(
            codes, codes.t(), scales, scales.t().contiguous(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
        torch.cuda.synchronize()
    except RuntimeError as error:
        return first_line(error)
    return None


def largest_budget(fits: Callable[[int], bool]) -> int:
    """Returns the largest token budget of a micro-batch for which `fits` says so, tried from `MOST_BATCH_TOKENS` down.

    The smallest tried comes back where none fits: whether single rows do is for the scorer to find out.
    """
    budget = MOST_BATCH_TOKENS
    while budget > _LEAST_BATCH_TOKENS and not fits(budget):
        budget //= 2
    return budget
