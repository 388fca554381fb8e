"""What the processes of a job are computing, and at which rows they died.

A process says what it begins and what it has ended. What begins again without having ended was cut short by the death
of its process: killed, out of memory, crashed, lost with its node, or ended by the watchdog because it hung.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

from lmsys_ray.processes import Process

_LONGEST_PAUSE = 30.0


class Task(NamedTuple):
    """Something that one process computes at a time."""

    member: str
    step: str
    """`encode`, `score`, or `load` for the start of an actor."""
    place: int | str
    """The shard, or the actor that starts."""
    start: int = 0
    stop: int = 0
    """The rows of the shard, from `start` to before `stop`."""

    def __str__(self) -> str:
        if self.step == "load":
            return f"members.{self.member}: loading the model"
        return f"members.{self.member}: shard {self.place}, rows {self.start} to {self.stop - 1} ({self.step})"


@dataclass(frozen=True)
class Worker:
    """A process and the node of the cluster on which it runs."""

    process: Process
    node: str


@dataclass(frozen=True)
class Attempt:
    """One process at one task."""

    task: Task
    worker: Worker
    since: float
    """When it began or, after deaths, may begin, in seconds since 1970."""


@dataclass(frozen=True)
class Death:
    """A process that did not come to the end of its task."""

    task: Task
    worker: Worker
    count: int
    """The how manieth at this task."""


class Attempts:
    """The ledger of one job. It runs as an actor of its own and knows nothing of Ray."""

    def __init__(self) -> None:
        self._under_way: dict[Task, Attempt] = {}
        self._deaths: dict[Task, int] = {}
        self._untold: list[Death] = []

    def begin(self, task: Task, worker: Worker) -> tuple[int, float]:
        """Returns how many processes died at `task` before, and the seconds to wait before it is tried again."""
        before = self._under_way.get(task)
        if before:
            count = self._deaths[task] = self._deaths.get(task, 0) + 1
            self._untold.append(Death(task, before.worker, count))
        deaths = self._deaths.get(task, 0)
        pause = min(2.0 ** (deaths - 1), _LONGEST_PAUSE) if deaths else 0.0
        self._under_way[task] = Attempt(task, worker, time.time() + pause)
        return deaths, pause

    def end(self, task: Task) -> None:
        """Says that `task` came to its end, so that the deaths before were not its fault."""
        self._under_way.pop(task, None)
        self._deaths.pop(task, None)

    def give_up(self, task: Task) -> None:
        """Says that `task` is not tried again; its deaths stay counted."""
        self._under_way.pop(task, None)

    def news(self) -> list[Death]:
        """Returns the deaths that were not returned before."""
        told, self._untold = self._untold, []
        return told

    def overdue(self, seconds: float) -> list[Attempt]:
        """Returns the attempts that have been going on for longer than `seconds`."""
        now = time.time()
        return [attempt for attempt in self._under_way.values() if now - attempt.since > seconds]
