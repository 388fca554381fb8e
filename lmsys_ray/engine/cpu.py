"""The cores of this machine: how many a replica computes on, and how well MKL uses them."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

import torch

_FAMILY_OF_ZEN_5 = 26


def use_cores(threads: int) -> None:
    """Lets torch compute on `threads` cores.

    Ray sets OMP_NUM_THREADS to the CPUs that an actor reserves, which is 1 or 0 for the one that holds the model.
    """
    torch.set_num_threads(threads)


@cache
def mkl_is_fast() -> bool:
    """Returns whether MKL, with which PyTorch multiplies float32, uses the full vector width of this processor."""
    path = Path("/proc/cpuinfo")
    processor = path.read_text(encoding="utf-8") if path.is_file() else ""
    return torch.backends.mkl.is_available() and not wider_than_mkl(processor)


def wider_than_mkl(processor: str) -> bool:
    """Returns whether a processor, described as in /proc/cpuinfo, has wider vectors than MKL uses on it.

    On AMD's processors MKL uses kernels of 256 bits only; from Zen 5 (family 26) on they compute on 512.
    """
    family = re.search(r"^vendor_id\s*: AuthenticAMD\ncpu family\s*: (\d+)$", processor, re.MULTILINE)
    return family is not None and int(family[1]) >= _FAMILY_OF_ZEN_5


def share_of_cores(threads: int | Literal["auto"], replicas: int | Literal["auto"]) -> int:
    """Returns how many cores a replica computes on: `threads`, or an even share of those that this process may use.

    All `replicas` are assumed to run on this machine; where they are spread over several, set `threads`.
    """
    if threads != "auto":
        return threads
    cores = len(os.sched_getaffinity(0))
    return cores if replicas == "auto" else max(1, cores // replicas)
