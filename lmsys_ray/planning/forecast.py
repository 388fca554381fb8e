"""How long a run takes and what it costs: passes over shards, lanes side by side, and the smallest number of GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from lmsys_ray.members.protocol import LANES, Lane

_MEASURED, _ASSUMED = (0.8, 1.25), (0.5, 2.0)
"""The range in which the seconds of a run are expected, as factors: by speeds measured here, or assumed."""

_IMPORT_SECONDS = 1.2
"""What importing Ray takes on two cores of a Zen 4, where it is not measured."""

_START, _INGEST, _WORKER, _LIBRARIES, _ENDS = 4.2, 3.3, 2.5, 4.5, 3.2
"""What a start of Ray, the first task that reads, a worker's start, its import of a language model's libraries, and a
command's first and last seconds take, as multiples of what importing Ray takes. Measurements: docs/lab/plan.md."""

JOIN_ROWS = 50_000
"""Rows that are joined and written in a second."""


@dataclass(frozen=True)
class StartUp:
    """Seconds that do not depend on the rows."""

    ray: float
    ingest: float
    worker: float
    """Of each pass, before its model is loaded."""
    libraries: float
    """Of each pass of a language model, too: this process has imported its libraries before it loads the model."""
    ends: float
    """The command's own start, and its last files."""

    @classmethod
    def of(cls, import_seconds: float | None = None) -> StartUp:
        """Returns what starting costs on a machine that imports Ray in so many seconds (None: not measured)."""
        unit = _IMPORT_SECONDS if import_seconds is None else import_seconds
        return cls(*(multiple * unit for multiple in (_START, _INGEST, _WORKER, _LIBRARIES, _ENDS)))

    def of_pass(self, lane: Lane) -> float:
        """Returns the seconds until a worker of a lane begins to load."""
        return self.worker + (self.libraries if lane == "device" else 0.0)


@dataclass(frozen=True)
class Pass:
    """A member's pass over all shards."""

    name: str
    lane: Lane
    replicas: int
    cores: float
    """CPU cores that it computes on, all replicas together; 0 on GPUs."""
    shards: int
    shard_seconds: float
    """What one replica takes for a shard, in the mean."""
    load: float
    """Seconds until a replica can score."""
    measured: bool

    @property
    def seconds(self) -> float:
        """Seconds of the pass: each replica loads, then scores one shard after another."""
        return self.load + ceil(self.shards / max(1, self.replicas)) * self.shard_seconds


@dataclass(frozen=True)
class Forecast:
    """How long a run takes, and what it costs."""

    start: float
    """Seconds of starts: the command, Ray, the first reading."""
    ingest: float
    passes: dict[str, float]
    """Seconds of each pass, alone on the machine."""
    scoring: float
    """Seconds of all passes, side by side as they run."""
    join: float
    low: float
    high: float
    gpus: int
    price: float | None
    measured: bool
    """Whether all speeds were measured here."""

    @property
    def seconds(self) -> float:
        """Seconds from the command to its end."""
        return self.start + self.ingest + self.scoring + self.join

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs together, which are held from beginning to end."""
        return self.gpus * self.seconds / 3600

    @property
    def cost(self) -> float | None:
        """The price of these; None where none was given."""
        return None if self.price is None else self.gpu_hours * self.price


def forecast(
    passes: Sequence[Pass],
    rows: int,
    reading: float,
    start_up: StartUp,
    cores: int,
    gpus: int,
    price: float | None = None,
) -> Forecast:
    """Returns how long passes over `rows` rows take; `reading` is the time in seconds that reading the input takes."""
    start = start_up.ray + start_up.ingest + start_up.ends
    begun = [replace(each, load=each.load + start_up.of_pass(each.lane)) for each in passes]
    scoring = lane_seconds(begun, cores)
    join, measured = rows / JOIN_ROWS, all(each.measured for each in passes)
    whole = start + reading + scoring + join
    low, high = _MEASURED if measured else _ASSUMED
    found = {each.name: each.seconds for each in begun}
    return Forecast(start, reading, found, scoring, join, whole * low, whole * high, gpus, price, measured)


def lane_seconds(passes: Sequence[Pass], cores: int) -> float:
    """Returns the seconds of passes in two lanes side by side.

    Passes on the CPU share its cores: what the shorter lane takes of them, the longer one waits for.
    """
    lanes = [sum(each.seconds for each in passes if each.lane == lane) for lane in LANES]
    work = sum(min(each.cores, cores) * each.seconds for each in passes)
    return max(*lanes, work / cores)


def gpus_needed(
    seconds_with: Callable[[int], float | None], deadline: float, most: int
) -> tuple[int | None, float | None]:
    """Returns the smallest number of GPUs with which a run meets a deadline, and its seconds; None where none does.

    `seconds_with` says how long it takes on a number of GPUs, None where it cannot run on so many. Of `most` on, more
    GPUs do not help: the second number then is the least time that is possible.
    """
    best: float | None = None
    for gpus in range(1, most + 1):
        seconds = seconds_with(gpus)
        if seconds is None:
            continue
        best = seconds if best is None else min(best, seconds)
        if seconds <= deadline:
            return gpus, seconds
    return None, best
