"""Which number type and quantization a replica uses, by its device."""

from collections.abc import Callable
from typing import Literal, cast

import torch

from lmsys_ray.engine import torch_internals
from lmsys_ray.engine.weight_counts import Weights
from lmsys_ray.errors import UsageError, first_line

Quantization = Literal["none", "int8", "nf4", "int8_dynamic", "fp8", "stored"]
"""`int8` and `nf4` are bitsandbytes'; `stored`: the checkpoint itself is quantized."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The types that the setting `dtype` names, beside `auto`."""

CPU_BATCH_TOKENS = 2048
"""Token budget of a micro-batch on a CPU. Measurements: docs/lab/cpu_products.md."""

FIXED_BATCH_TOKENS = 2048
"""Token budget where scores depend on the micro-batch: the same on every device, and small enough for all."""

MOST_BATCH_TOKENS = 16384
"""Above this a GPU's matrix products get no faster (an 8-billion-parameter model keeps an H100 busy for 0.3 s)."""

_LEAST_BATCH_TOKENS = 512


# Weights may take this share of the memory; activations of a micro-batch and the libraries need the rest.
_WEIGHT_SHARE = 0.8

BYTES_PER_WEIGHT = {"int8": 1.0, "nf4": 0.5625}
"""Bytes of a weight that bitsandbytes quantizes; nf4 keeps a float32 scale for every 64."""


def choose_dtype(setting: str, trained: str | None = None) -> torch.dtype:
    """Returns the type of weights and activations of a scorer.

    `auto` means the type in which the adapter was `trained`, if that is known and this device computes in it; otherwise
    bfloat16 on GPUs that compute in it, float16 on other GPUs, and float32 without a GPU.
    """
    if setting != "auto":
        return DTYPES[setting]
    if trained is not None and computes_in(trained):
        return DTYPES[trained]
    return native_dtype("cuda") if torch.cuda.is_available() else torch.float32


def native_dtype(device: Literal["cuda", "cpu"]) -> torch.dtype:
    """Returns the fastest type of a device: bfloat16 if it computes in it, else float16 on a GPU, float32 on a CPU."""
    if computes_in("bfloat16", device):
        return torch.bfloat16
    return torch.float16 if device == "cuda" else torch.float32  # a T4 has only float16


def computes_in(dtype: str, device: Literal["cuda", "cpu"] | None = None) -> bool:
    """Returns whether a device multiplies matrices in a type natively, rather than emulating it several times slower.

    `device` None means the GPU if there is one.
    """
    if dtype == "float32":
        return True
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return dtype == "float16" or torch.cuda.get_device_capability() >= (8, 0)
    abilities = torch.cpu.get_capabilities()
    return dtype == "bfloat16" and bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def other_dtype(chosen: torch.dtype, trained: str | None) -> str | None:
    """Returns a sentence for the user where a scorer's type is not the one its adapter was `trained` in, else None."""
    if trained is None or chosen == DTYPES[trained]:
        return None
    return (
        f"trained in {trained}, scored in {str(chosen).removeprefix('torch.')}: probabilities differ from those of the "
        f"training by some thousandths; set dtype to {trained} where the device computes in it"
    )


def choose_quantization(setting: str, weights: Weights, memory: int, width: int = 2) -> Quantization:
    """Returns the quantization of a model of `weights` on GPUs of `memory` bytes in total (0: no GPU).

    `auto` means the plain type, of `width` bytes, wherever it fits: bitsandbytes saves memory, not time. `int8_dynamic`
    and `fp8` trade accuracy for time, so they must be asked for. Raises `UsageError` for `fp8` on a GPU without such
    products.
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
    """Returns why a small product like those of `quantized.Fp8Linear` fails on this GPU, or None if it does not.

    Support depends on the versions of torch and cuBLAS: GPUs of capability 12.0 lacked it for a long time.
    """
    if not torch_internals.HAS_SCALED_MM:
        return "torch._scaled_mm is missing"
    codes = torch.ones(256, 256, device="cuda").to(torch.float8_e4m3fn)
    scales = torch.ones(256, 1, device="cuda")
    try:
        torch_internals.scaled_mm(
            codes, codes.t(), scales, scales.t().contiguous(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
        torch.cuda.synchronize()
    except RuntimeError as error:
        return first_line(error)
    return None


def largest_budget(fits: Callable[[int], bool]) -> int:
    """Returns the largest token budget of a micro-batch that `fits`, halving from `MOST_BATCH_TOKENS`.

    Where none does, this returns the smallest tried: whether single rows fit is left to the scorer.
    """
    budget = MOST_BATCH_TOKENS
    while budget > _LEAST_BATCH_TOKENS and not fits(budget):
        budget //= 2
    return budget
