"""Calls a function again and again in a thread of its own."""

import threading
from collections.abc import Callable


class PollThread:
    """A daemon thread that calls `poll` every `seconds`, from `start` until `cancel` or `stop`.

    With `at_once` the first call comes before the first wait. `at_end` is called once, after the last `poll`.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        poll: Callable[[], None],
        at_once: bool = False,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        self._seconds = seconds
        self._poll = poll
        self._at_once = at_once
        self._at_end = at_end
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def cancelled(self) -> bool:
        """Whether no further call will begin, except that of `at_end`."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Begins no further call; returns at once, also inside `poll`."""
        self._cancelled.set()

    def stop(self, seconds: float | None = None) -> None:
        """Cancels, and waits for the thread to end, for at most so many `seconds`; None: as long as it takes."""
        self.cancel()
        self._thread.join(seconds)

    def _run(self) -> None:
        if self._at_once:
            self._poll()
        while not self._cancelled.wait(self._seconds):
            self._poll()
        if self._at_end:
            self._at_end()
