"""The device of a plan: a GPU of a small table, the one of this machine, or this machine's CPU.

Sources of the figures: docs/plan.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

from lmsys_ray.errors import UsageError
from lmsys_ray.processes import machine_memory

GIB = 1 << 30


class Gpu(NamedTuple):
    """What a GPU has, by its makers' data sheet; peaks are of dense products."""

    name: str
    memory: float
    """GiB that torch sees, which is less than the name says."""
    tflops: float
    """Peak of float16 and, where it has that, bfloat16; 10^12 operations a second."""
    int8: float
    """Peak of int8; 10^12 operations a second."""
    bfloat16: bool = True
    fp8: bool = False


GPUS = (
    Gpu("T4", 14.5, 65, 130, bfloat16=False),
    Gpu("L4", 22, 121, 242, fp8=True),
    Gpu("A10G", 22, 70, 140),
    Gpu("A100-40", 39, 312, 624),
    Gpu("A100-80", 79, 312, 624),
    Gpu("H100", 79, 989, 1979, fp8=True),
    Gpu("H200", 139, 989, 1979, fp8=True),
    Gpu("B200", 178, 2250, 4500, fp8=True),
)
"""GPUs that are rented most. An H100 is one with SXM, a B200 one of eight in an HGX."""

_ASSUMED_CORES = 8
"""CPU cores beside each GPU that is not here."""


@dataclass(frozen=True)
class Machine:
    """Where a run is planned to go."""

    device: str
    """The name of its GPUs, or its CPU cores in words."""
    gpus: int
    """0: everything runs on the CPU."""
    cores: int
    memory: int
    """Bytes of one GPU, or of the machine where it has none; 0: not known."""
    here: bool
    """Whether it is this machine, so that its speed can be measured."""
    gpu: Gpu | None = None
    """What is known of its GPUs; None where nothing is."""

    def with_gpus(self, gpus: int) -> Machine:
        """Returns the same with another number of GPUs, and as many more cores."""
        cores = max(1, self.cores * gpus // max(1, self.gpus))
        return Machine(self.device, gpus, cores, self.memory, self.here, self.gpu)

    def on_its_cpu(self) -> Machine:
        """Returns the same without its GPUs, for members that do not use them."""
        memory = self.memory if not self.gpus else machine_memory() if self.here else 0
        return Machine(f"{self.cores} CPU cores", 0, self.cores, memory, self.here)


def machine_for(gpu: Gpu | None, gpus: int | None) -> Machine:
    """Returns the machine of a plan; raises `UsageError` for a number of GPUs of which it is not known which."""
    if gpu is not None:
        count = gpus or 1
        return Machine(gpu.name, count, count * _ASSUMED_CORES, int(gpu.memory * GIB), here=False, gpu=gpu)
    machine = _this_machine()
    if gpus is None:
        return machine
    if not machine.gpus:
        names = ", ".join(gpu.name for gpu in GPUS)
        raise UsageError(f"--gpus: {gpus}, but this machine has no GPU; say which are meant with --gpu ({names})")
    return machine.with_gpus(gpus)


def known_gpu(name: str, memory: int) -> Gpu | None:
    """Returns the GPU of the table that torch calls `name`, of `memory` bytes; None where it is not in it."""
    words = name.upper().replace("-", " ").split()
    for gpu in GPUS:
        model, _, size = gpu.name.partition("-")
        if model in words and (not size or abs(memory / GIB - gpu.memory) < 8):
            return gpu
    return None


def _this_machine() -> Machine:
    import torch

    cores = len(os.sched_getaffinity(0))
    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
        return Machine(name, torch.cuda.device_count(), cores, memory, here=True, gpu=known_gpu(name, memory))
    return Machine(f"{cores} CPU cores", 0, cores, machine_memory(), here=True)
