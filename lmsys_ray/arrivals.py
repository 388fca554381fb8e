"""Tells that a stage waits for nodes of the cluster, and when they come and go."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

import ray

_POLL_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 60.0


class Arrivals:
    """Watches, beside a stage, the nodes that have at least `least` of a resource, which is what an actor needs.

    Nothing is said as long as the nodes stay as they were at the start, unless there are none.
    """

    def __init__(self, stage: str, resource: Literal["CPU", "GPU"], least: float, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._resource = resource
        self._least = least
        self._say = say
        self._known: list[float] | None = None
        self._told = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"arrivals for {stage}", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if error is None:
            self._thread.join()

    def _watch(self) -> None:
        while True:
            self.look(nodes_with(self._resource, self._least), time.monotonic())
            if self._done.wait(_POLL_SECONDS):
                return

    def look(self, nodes: list[float], now: float) -> None:
        """Says what is new, `nodes` being how much of the resource each node that has enough of it has."""
        if not nodes and (self._known != [] or now - self._told >= _SECONDS_BETWEEN_LINES):
            unit = f"{self._resource}s" if self._least > 1 else self._resource
            self._say(f"{self._stage}: waits for nodes with {self._least:g} {unit}, the cluster has none")
            self._told = now
        elif nodes and self._known not in (None, nodes):
            self._say(f"{self._stage}: nodes with {self._resource}s are now {len(nodes)}, with {sum(nodes):g} in all")
        self._known = nodes


def nodes_with(resource: str, least: float) -> list[float]:
    """Returns how much of a resource each node has that lives and has `least` of it, the most first."""
    amounts = (node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"])
    return sorted((amount for amount in amounts if amount >= least), reverse=True)
