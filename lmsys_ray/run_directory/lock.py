"""The lock of a run directory, which keeps two starts from working in it at the same time."""

import hashlib
import json
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from pydantic import TypeAdapter

from lmsys_ray.errors import RunError
from lmsys_ray.polling import PollThread
from lmsys_ray.processes import Process
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage.files import exists

_BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
"""A start on another machine whose last beat is this old may be dead; it is then watched for two beats."""


_SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Holder:
    """The start that holds a lock, as in the file."""

    process: Process
    since: str
    token: str
    """Unique to this start."""
    beat: float
    """When it last renewed the lock, in seconds since 1970."""

    @classmethod
    def parse(cls, text: str) -> "Holder | None":
        """Returns the holder in the text of a lock; None if the text is not one that a start has written."""
        try:
            holder = _HOLDER.validate_json(text, strict=True)
        except ValueError:
            return None
        return holder if holder.text() == text else None

    def text(self) -> str:
        """Returns the text of the lock, which `parse` reads."""
        values = asdict(self)
        return json.dumps({**values, "checksum": hashlib.sha256(json.dumps(values).encode()).hexdigest()})


_HOLDER = TypeAdapter(Holder)


class RunLock:
    """Held by one start at a time, from `__enter__` to `__exit__`; a thread renews it.

    A lock is stale, and is taken over, if its process is dead or, on another machine, has not renewed it for a minute.
    A damaged one, of which nobody knows whose it is, is stale unless a start writes it anew with its next beat.
    Raises `RunError` with one sentence where the holder is alive.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._own = Holder(Process.current(), since, uuid.uuid4().hex, time.time())
        self._keeper = PollThread("run lock", _BEAT_SECONDS, self._renew)
        self._lost: RunError | None = None

    def __enter__(self) -> "RunLock":
        # The lock may be its own already, if storage repeated the request because the first answer was lost.
        while not (self._run.create_lock(self._own.text()) or self._is_own() or self._take_over()):
            pass
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.stop()
        with suppress(RunError):  # A lock that cannot be reached becomes stale; an earlier error is the one to report.
            if self._is_own():
                self._run.remove_lock()

    @property
    def token(self) -> str:
        """A token that no other start has, as in the lock."""
        return self._own.token

    def check(self) -> None:
        """Raises `RunError` if another start took the lock over, or it cannot be renewed."""
        if self._lost:
            raise self._lost

    def _take_over(self) -> bool:
        """Replaces a stale lock by its own; returns whether it is still there, since of two at once the later wins."""
        holder = self._holder() or self._repaired()
        if holder and self._lives(holder):
            raise _refusal(self._run, holder)
        self._run.replace_lock(self._own.text())
        time.sleep(_SETTLE_SECONDS)
        return self._is_own()

    def _repaired(self) -> Holder | None:
        """Returns the holder of a damaged lock once that is written anew; None where nobody does that."""
        deadline = time.monotonic() + 2 * _BEAT_SECONDS
        while (holder := self._holder()) is None and exists(self._run.lock) and time.monotonic() < deadline:
            time.sleep(_SETTLE_SECONDS)
        return holder

    def _lives(self, holder: Holder) -> bool:
        if holder.process.is_local():
            return holder.process.is_alive()
        if 0 <= time.time() - holder.beat < _SILENCE_SECONDS:
            return True
        time.sleep(2 * _BEAT_SECONDS)  # Clocks differ, so what counts is whether it is renewed.
        return self._holder() not in (holder, None)

    def _renew(self) -> None:
        try:
            holder = self._holder()
            if holder and holder.token != self._own.token:
                raise _refusal(self._run, holder)
            if not holder and not exists(self._run.lock):
                raise RunError(f"{self._run.lock} is gone; start again")
            self._run.replace_lock(replace(self._own, beat=time.time()).text())
        except RunError as error:
            self._lost = error
            self._keeper.cancel()

    def _holder(self) -> Holder | None:
        return Holder.parse(self._run.read_lock())

    def _is_own(self) -> bool:
        holder = self._holder()
        return holder is not None and holder.token == self._own.token


def _refusal(run: RunDirectory, holder: Holder) -> RunError:
    return RunError(
        f"{run.path} is at work for {holder.process} since {holder.since}; wait for it, stop it, or choose another "
        "--output"
    )
