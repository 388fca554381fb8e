"""A replica of a simulation. Its module imports next to nothing, so that hundreds of processes start on one machine."""

import os
import threading
import time
from pathlib import Path

import pyarrow as pa

SLOW = 0.5
"""The speed of the slow replica, as a share of the others'."""


class Sleeper:
    """An actor of the pool that takes as long as a replica would."""

    def __init__(self, tokens_per_second: float, ready: float, slow: Path | None) -> None:
        """Is there at `ready`, in seconds since the epoch, or as soon as its process is."""
        time.sleep(max(0.0, ready - time.time()))
        self._speed = tokens_per_second * (SLOW if slow is not None and _claimed(slow) else 1)
        self._ready = time.time()
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self._turn:
            began = time.time()
            time.sleep(batch["tokens"][0].as_py() / self._speed)
            told = {"replica": os.getpid(), "ready": self._ready, "began": began, "ended": time.time()}
        return pa.Table.from_pylist([{"shard": batch["shard"][0].as_py(), "speed": self._speed, **told}])


def as_it_is(shard: pa.Table) -> pa.Table:
    """What stands in for encoding."""
    return shard


def _claimed(path: Path) -> bool:
    """Whether this process is the first to ask for `path`."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
