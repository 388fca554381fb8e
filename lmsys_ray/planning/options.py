"""What a user asks of a plan, beside the settings of the run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lmsys_ray.errors import UsageError
from lmsys_ray.planning.devices import GPUS, Gpu

SAMPLE = 2000
"""Rows of the input that members' encoders read, by default."""

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)(min|[dhms])")


@dataclass(frozen=True)
class Options:
    """What a plan is made for."""

    sample: int = SAMPLE
    """Rows of the input that members' encoders read."""
    whole: bool = False
    """Whether a large input is read to its end."""
    probe: int | None = None
    """Rows that members score to measure their speed; None: nothing is scored."""
    gpu: Gpu | None = None
    """A GPU that this machine may not have."""
    gpus: int | None = None
    """How many GPUs the run has."""
    price: float | None = None
    """Of one GPU for one hour."""
    deadline: float | None = None
    """Seconds within which the run must be done."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for numbers that mean nothing."""
        for name in ("sample", "probe", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name}: {value} is not accepted; give a number from 1 on")
        if self.price is not None and not 0 <= self.price < math.inf:
            raise UsageError(f"--price: {self.price:g} is not the price of a GPU for an hour; give one, such as 2.5")


def gpu_named(name: str | None) -> Gpu | None:
    """Returns the GPU of a name; raises `UsageError` for one that is not in the table."""
    if name is None:
        return None
    found = next((gpu for gpu in GPUS if gpu.name.lower() == name.strip().lower()), None)
    if found is None:
        raise UsageError(f"--gpu: {name} is not known; accepted: {', '.join(gpu.name for gpu in GPUS)}")
    return found


def seconds_of(text: str | None) -> float | None:
    """Returns the seconds that a text such as `8h`, `90m`, `1h30m` or `2d` means; raises `UsageError` for others."""
    if text is None:
        return None
    parts = _PART.findall(text.strip().lower())
    whole = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if whole != text.strip().lower().replace(" ", "") or not seconds:
        raise UsageError(f"--deadline: {text} is not a duration; give one such as 8h, 90m, 1h30m or 2d")
    return seconds
