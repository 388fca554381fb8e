"""The memory that a replica needs, against what its device has."""

from __future__ import annotations

from dataclasses import dataclass

from lmsys_ray.planning.devices import Machine
from lmsys_ray.planning.loads import Loads

_CONTEXT = 600 << 20
"""What CUDA and its libraries take beside torch."""

_BUDGETS = (16_384, 8192, 4096, 2048, 1024, 512)
"""Token budgets of a micro-batch that `auto` tries on a GPU, the largest first."""

FIXED_BUDGET = 2048
"""The token budget on a CPU, and with int8."""

_STATES, _WIDE = 8, 3
"""Values of a token that are held at once: so many of the width of the states, and of that of the feed-forward."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a replica needs, and those that it has."""

    weights: int
    activations: int
    context: int
    has: int
    """Of its GPUs, or of the machine; 0: not known."""
    batch_tokens: int
    """The token budget of a micro-batch."""

    @property
    def needs(self) -> int:
        """All together."""
        return self.weights + self.activations + self.context

    @property
    def fits(self) -> bool:
        """Whether the device has as much as is needed, as far as that is known."""
        return not self.has or self.needs <= self.has


def memory_of(loads: Loads, machine: Machine, gpus_per_replica: float, batch_tokens: int | None) -> Memory:
    """Returns the memory of a replica; `batch_tokens` None means the setting `auto`.

    Activations are an estimate: those of one block, whose states the next one replaces.
    """
    has = int(machine.memory * (gpus_per_replica if machine.gpus else 1))
    context = _CONTEXT if machine.gpus else 0
    budgets: tuple[int, ...] = (batch_tokens,) if batch_tokens else _BUDGETS
    if batch_tokens is None and (not machine.gpus or loads.quantization == "int8"):
        budgets = (FIXED_BUDGET,)
    tried = [Memory(loads.weight_bytes, activation_bytes(loads, each), context, has, each) for each in budgets]
    return next((memory for memory in tried if memory.fits), tried[-1])


def activation_bytes(loads: Loads, tokens: int) -> int:
    """Returns the bytes of the activations of a micro-batch."""
    return tokens * loads.width * (_STATES * loads.hidden + _WIDE * loads.intermediate)


def fits_plain(loads: Loads, machine: Machine, gpus_per_replica: float) -> bool:
    """Returns whether the weights in 16 bits fit a replica's GPUs, by the rule of the setting `auto`."""
    return 2 * loads.parameters <= 0.8 * machine.memory * gpus_per_replica
