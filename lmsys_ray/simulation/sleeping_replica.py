"""A replica of a simulation; it imports very little, so that hundreds of processes can start on one machine."""

import os
import threading
import time
from pathlib import Path

import pyarrow as pa

SLOW = 0.5
"""The speed of the slow replica, relative to the others."""


class Sleeper:
    """An actor of the pool that takes as long as a replica would."""

    def __init__(self, tokens_per_second: float, ready: float, slow: Path | None) -> None:
        """Is ready at `ready`, in seconds since the epoch, or as soon as its process has started."""
        time.sleep(max(0.0, ready - time.time()))
        self._speed = tokens_per_second * (SLOW if slow is not None and _claimed(slow) else 1)
        self._ready = time.time()
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Sleeps for as long as the tokens of a shard take, one shard at a time."""
        with self._turn:
            began = time.time()
            time.sleep(batch["tokens"][0].as_py() / self._speed)
            span = {"replica": os.getpid(), "ready": self._ready, "began": began, "ended": time.time()}
        return pa.Table.from_pylist([{"shard": batch["shard"][0].as_py(), "speed": self._speed, **span}])


def not_encoded(shard: pa.Table) -> pa.Table:
    """Takes the place of encoding."""
    return shard


def _claimed(path: Path) -> bool:
    """Returns whether this process is the first to ask for `path`."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
