"""Records what the processes of a job are working on, and at which rows they died.

A process reports the beginning and the end of each work item. An item that begins again without an end was interrupted
by the death of its process: killed, out of memory, crashed, lost with its node, or ended because it hung.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

from lmsys_ray.processes import Process

_LONGEST_PAUSE = 30.0
"""Seconds."""


class WorkItem(NamedTuple):
    """Something that one process does at a time."""

    member: str
    step: str
    """`encode`, `score`, `load` (the start of an actor) or `read` (a file of the input)."""
    place: int | str
    """The shard, the actor that starts, or the file."""
    start: int = 0
    stop: int = 0
    """The rows `start` to `stop` - 1 of the shard; the place of the file in the input, and where its part begins."""

    def __str__(self) -> str:
        if self.step == "read":
            return f"{self.member}: reading {self.place}"
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
    """One process at one work item."""

    item: WorkItem
    worker: Worker
    since: float
    """When it began, or may begin after earlier deaths, in seconds since 1970."""


@dataclass(frozen=True)
class Death:
    """A process that died before the end of its work item."""

    item: WorkItem
    worker: Worker
    count: int
    """The number of deaths at this item so far, with this one."""


class Ledger:
    """The ledger of one job. It runs as an actor, but does not use Ray itself."""

    def __init__(self) -> None:
        self._under_way: dict[WorkItem, Attempt] = {}
        self._deaths: dict[WorkItem, int] = {}
        self._unreported: list[Death] = []

    def begin(self, item: WorkItem, worker: Worker) -> tuple[int, float]:
        """Returns how many processes have died at `item`, and how many seconds to wait before trying it again."""
        before = self._under_way.get(item)
        if before:
            count = self._deaths[item] = self._deaths.get(item, 0) + 1
            self._unreported.append(Death(item, before.worker, count))
        deaths = self._deaths.get(item, 0)
        pause = min(2.0 ** (deaths - 1), _LONGEST_PAUSE) if deaths else 0.0
        self._under_way[item] = Attempt(item, worker, time.time() + pause)
        return deaths, pause

    def end(self, item: WorkItem) -> None:
        """Notes that `item` was completed, so that it did not cause the earlier deaths."""
        self._under_way.pop(item, None)
        self._deaths.pop(item, None)

    def give_up(self, item: WorkItem) -> None:
        """Notes that `item` is not tried again; its deaths stay counted."""
        self._under_way.pop(item, None)

    def drain_deaths(self) -> list[Death]:
        """Returns the deaths since the last call."""
        deaths, self._unreported = self._unreported, []
        return deaths

    def overdue(self, seconds: float) -> list[Attempt]:
        """Returns the attempts that have taken longer than `seconds`; reading a file may take any time."""
        now, timed = time.time(), [attempt for attempt in self._under_way.values() if attempt.item.step != "read"]
        return [attempt for attempt in timed if now - attempt.since > seconds]
