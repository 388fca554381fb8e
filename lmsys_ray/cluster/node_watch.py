"""Says when a stage waits for nodes of the cluster, and when nodes join or leave."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

import ray

from lmsys_ray.polling import PollThread

_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 60.0


class NodeWatch:
    """Watches, during a stage, the nodes with at least `least` of a resource, which is what an actor needs.

    It says nothing while the nodes stay as they were at the start, unless there are none.
    """

    def __init__(self, stage: str, resource: Literal["CPU", "GPU"], least: float, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._resource = resource
        self._least = least
        self._say = say
        self._known: list[float] | None = None
        self._last_line = 0.0
        self._thread = PollThread(f"nodes for {stage}", _POLL_SECONDS, self._poll, at_once=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._thread.stop()
        else:
            self._thread.cancel()

    def _poll(self) -> None:
        self.update(nodes_with(self._resource, self._least), time.monotonic())

    def update(self, nodes: list[float], now: float) -> None:
        """Says what has changed; `nodes` has the amount of the resource on each node with enough of it."""
        if not nodes and (self._known != [] or now - self._last_line >= _SECONDS_BETWEEN_LINES):
            unit = f"{self._resource}s" if self._least > 1 else self._resource
            self._say(f"{self._stage}: waits for nodes with {self._least:g} {unit}, the cluster has none")
            self._last_line = now
        elif nodes and self._known not in (None, nodes):
            self._say(f"{self._stage}: nodes with {self._resource}s are now {len(nodes)}, with {sum(nodes):g} in all")
        self._known = nodes


def nodes_with(resource: str, least: float) -> list[float]:
    """Returns the amounts of a resource on the live nodes with at least `least` of it, largest first."""
    amounts = (node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"])
    return sorted((amount for amount in amounts if amount >= least), reverse=True)
