"""Ends a run whose processes keep dying without progress, as when memory is short.

The ledger only knows deaths at a work item. Ray also restarts, for ever, processes that die before it, while they load
their libraries, or after it, while they hand over the result. Measurements: docs/lab/under_fire.md
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2

from lmsys_ray.errors import RunError
from lmsys_ray.output import end

_LOOK_SECONDS = 5.0
_DEATHS = 5
"""Unexplained deaths that end a run, for each node and each of `max_deaths`."""

_SECONDS = 30.0
"""For how long the limit must be exceeded, since the ledger learns of a death only when its item begins again."""

_CRASHED = ("SYSTEM_ERROR", "NODE_OUT_OF_MEMORY")
"""Ray's exit types of processes that did not exit intentionally or with a reported error."""


class DeathLimit:
    """Decides when processes have died too often.

    That is when, for half a minute without progress, at least five times `max_deaths` processes on each live node have
    died that the ledger does not explain.
    """

    def __init__(self, max_deaths: int) -> None:
        self._most = _DEATHS * max_deaths
        self._counted: set[bytes] = set()
        self._unexplained = 0
        self._known = 0
        self._since: float | None = None

    def progress(self) -> None:
        """Notes that some work was completed."""
        self._unexplained, self._since = 0, None

    def check(self, dead: Iterable[bytes], nodes: int, known: int, now: float) -> RunError | None:
        """Returns the error that must end the run, if the limit is reached.

        `dead` are all processes of this start that died on live nodes, of which there are `nodes`; `known` is the
        number of deaths in the ledger; `now` is in seconds.
        """
        new = set(dead) - self._counted
        self._counted |= new
        self._unexplained = max(0, self._unexplained + len(new) - (known - self._known))
        self._known = known
        if self._unexplained < self._most * nodes:
            self._since = None
            return None
        self._since = now if self._since is None else self._since
        if now - self._since < _SECONDS:
            return None
        return RunError(
            f"{self._unexplained} processes died one after another and nothing was done meanwhile, most likely for "
            "lack of memory; give the machine or its control group more memory or run fewer replicas and workers, and "
            "start the same command again (--set max_deaths=NUMBER lets more die)"
        )


class WorkerDeaths:
    """Reads from Ray which worker processes of this job died."""

    def __init__(self) -> None:
        self._job = bytes.fromhex(ray.get_runtime_context().get_job_id())
        self._next = 0.0

    def due(self) -> bool:
        """Returns whether it is time to read again; the table is long on a large cluster."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK_SECONDS
        return True

    def read(self) -> tuple[list[bytes], int]:
        """Returns the ids of the processes that crashed on live nodes, and the number of live nodes."""
        alive = {bytes.fromhex(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
        table = state._connect_and_get_accessor().get_worker_table()
        workers = map(gcs_pb2.WorkerTableData.FromString, table)  # type: ignore[attr-defined]
        return [w.worker_address.worker_id for w in workers if self._counts(w, alive)], max(1, len(alive))

    def _counts(self, worker: Any, alive: set[bytes]) -> bool:
        kind = worker.DESCRIPTOR.fields_by_name["exit_type"].enum_type.values_by_number[worker.exit_type].name
        died = not worker.is_alive and kind in _CRASHED
        return died and worker.job_id == self._job and worker.worker_address.node_id in alive


@contextmanager
def raising_in_main_thread() -> Iterator[Callable[[RunError], None]]:
    """Yields a function that raises an error in the main thread, even while that waits for Ray; any thread may call it.

    Outside the main thread, the function ends the process with the error instead.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda error: end(f"error: {error}", error.exit_code)
        return
    errors: list[RunError] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise errors[0]

    def raise_there(error: RunError) -> None:
        errors.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield raise_there
    finally:
        signal.signal(signal.SIGUSR1, before)
