"""How fast a member scores: measured on this machine, or assumed from what its device can compute at most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsys_ray.planning.devices import Gpu
from lmsys_ray.planning.loads import Loads

SHARES = {"none": 0.40, "int8": 0.12, "nf4": 0.25, "int8_dynamic": 0.30, "fp8": 0.30}
"""The share of a GPU's peak that a member is assumed to reach, by quantization; no measurement."""

_OTHER_SHARE = 0.15

LOAD_BYTES = 500 << 20
"""Bytes of weights that are assumed to be read in a second."""

_LEAST_LOAD = 5.0
"""Seconds that loading is assumed to take at least: the device's first call, the check of a few rows."""


@dataclass(frozen=True)
class Speed:
    """The speed of one replica or worker."""

    units: str
    """What its time is proportional to: `tokens`, or the `bytes` of the texts."""
    rate: float
    """Units a second."""
    load: float
    """Seconds until it can score."""
    measured: bool
    """Whether it was measured here; else it is assumed."""
    source: str
    """Where it comes from."""


def assumed_speed(loads: Loads, lengths: np.ndarray, gpu: Gpu) -> Speed:
    """Returns the speed on a GPU of sequences of `lengths` tokens, as an assumption."""
    quantization = loads.quantization
    share = SHARES.get(quantization, _OTHER_SHARE)
    peak = gpu.int8 if quantization in ("int8_dynamic", "fp8") else gpu.tflops
    if loads.dtype == "float32":
        share, peak = share / 4, gpu.tflops  # tensor cores compute float32 in a quarter of the peak at best
    rate = peak * 1e12 * share / operations_per_token(loads, lengths)
    load = max(_LEAST_LOAD, loads.weight_bytes / LOAD_BYTES)
    return Speed("tokens", rate, load, False, f"assumed: {share:.0%} of {gpu.name}'s peak of {peak:,.0f} TFLOPS")


def operations_per_token(loads: Loads, lengths: np.ndarray) -> float:
    """Returns the floating-point operations of a token, in the mean of sequences of `lengths` tokens.

    A multiplication and an addition count as 2: 2 for each weight, and 4 for each pair of tokens and value of a head.
    """
    tokens = lengths.astype(np.float64)
    pairs = (tokens * (tokens + 1) / 2 if loads.causal else tokens**2).sum()
    attention = 4.0 * loads.blocks * loads.heads * loads.head_dim * pairs
    return 2.0 * loads.computed + float(attention / max(1.0, tokens.sum()))
