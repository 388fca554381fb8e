"""Keeps two starts from working in one run directory at the same time."""

import json
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from lmsys_ray.errors import RunError
from lmsys_ray.processes import Process
from lmsys_ray.run import RunDirectory

_BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
"""After this long without a sign of life a start on another machine may be dead; it is then watched for two beats."""


_SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class _Holder:
    """Who holds a lock, as it stands in the file."""

    process: Process
    since: str
    token: str
    """Told apart from every other start."""
    beat: float
    """Its last sign of life, in seconds since 1970."""

    @classmethod
    def read(cls, run: RunDirectory) -> "_Holder | None":
        """Returns the holder of a run's lock; None where there is none, or nothing that a start has written."""
        try:
            values = json.loads(run.read_lock() or "null")
            return cls(**{**values, "process": Process(**values["process"])}) if values else None
        except (ValueError, TypeError, KeyError):
            return None

    def text(self) -> str:
        return json.dumps(asdict(self))


class RunLock:
    """Held by one start at a time, from `__enter__` to `__exit__`; renewed by a thread.

    A lock is stale, and taken over, where its process is dead, or, on another machine, has given no sign of life for a
    minute. Raises `RunError` with one sentence where the holder lives.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._own = _Holder(Process.current(), since, uuid.uuid4().hex, time.time())
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="run lock", daemon=True)
        self._lost: RunError | None = None

    def __enter__(self) -> "RunLock":
        # Looked at again: a store may say that it is there where the answer to the first try was lost.
        while not (self._run.create_lock(self._own.text()) or self._is_own() or self._take_over()):
            pass
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._keeper.join()
        with suppress(RunError):  # Out of reach, it is stale and taken over; what went wrong before is to be told.
            if self._is_own():
                self._run.remove_lock()

    def check(self) -> None:
        """Raises `RunError` where another start has taken the lock over, or it cannot be renewed."""
        if self._lost:
            raise self._lost

    def _take_over(self) -> bool:
        """Replaces a stale lock by the own one and returns whether it stayed: of two at once, the later one has it."""
        holder = _Holder.read(self._run)
        if holder is None:
            time.sleep(_SETTLE_SECONDS)  # It may be about to be written.
            holder = _Holder.read(self._run)
        if holder and self._lives(holder):
            raise _refusal(self._run, holder)
        self._run.replace_lock(self._own.text())
        time.sleep(_SETTLE_SECONDS)
        return self._is_own()

    def _lives(self, holder: _Holder) -> bool:
        if holder.process.is_near():
            return holder.process.lives()
        if time.time() - holder.beat < _SILENCE_SECONDS:
            return True
        time.sleep(2 * _BEAT_SECONDS)  # Clocks differ: what counts is whether it still beats.
        return _Holder.read(self._run) not in (holder, None)

    def _keep(self) -> None:
        while not self._done.wait(_BEAT_SECONDS):
            try:
                if not self._is_own():
                    holder = _Holder.read(self._run)
                    raise _refusal(self._run, holder) if holder else RunError(f"{self._run.lock} is gone; start again")
                self._run.replace_lock(replace(self._own, beat=time.time()).text())
            except RunError as error:
                self._lost = error
                return

    def _is_own(self) -> bool:
        holder = _Holder.read(self._run)
        return holder is not None and holder.token == self._own.token


def _refusal(run: RunDirectory, holder: _Holder) -> RunError:
    return RunError(
        f"{run.path} is at work for {holder.process} since {holder.since}; wait for it, stop it, or choose another "
        "--output"
    )
