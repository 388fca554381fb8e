"""Shows the progress of a run: bars on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lmsys_ray.polling import PollThread
from lmsys_ray.printable import printable

_SECONDS_BETWEEN_LINES = 10.0

_SILENT_SECONDS = 25.0
"""After this long without a line, one is printed that says what is under way."""


class Display:
    """The progress of several stages at once, each counted in rows."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._total: dict[str, int | None] = {}
        self._started: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        self._doing: dict[str, float] = {}
        """What is under way, and since when; the latest comes last."""
        self._spoke = time.monotonic()
        self._thread = PollThread("display", 1.0, self._break_silence)

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description:<12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("rows"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=self._console)
            self._bars.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.cancel()
        if self._bars:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the bars where there are any."""
        self._spoke = time.monotonic()
        self._console.print(printable(line), markup=False)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Surrounds what may take long; a line names it if nothing else is printed for half a minute."""
        self._doing[what] = time.monotonic()
        try:
            yield
        finally:
            del self._doing[what]

    def _break_silence(self) -> None:
        if time.monotonic() - self._spoke >= _SILENT_SECONDS:
            self.show_activity(time.monotonic())

    def show_activity(self, now: float) -> None:
        """Prints what is under way and how far it is, except on a terminal with bars, which show that."""
        self._spoke = now
        under_way = list(self._doing.items())
        if under_way and not self._tasks:
            what, since = under_way[-1]
            counted = [self._line(stage, "") for stage in self._total if what.endswith(stage)]
            self.say(f"still at work: {what}, for {now - since:,.0f} s" + "".join(f" ({line})" for line in counted))

    def start(self, stage: str, rows: int | None, done: int = 0) -> None:
        """Begins a stage of `rows` rows (None: not known), of which `done` are done already."""
        self._done[stage], self._total[stage] = done, rows
        self._started[stage] = self._last_line[stage] = time.monotonic()
        if self._bars:
            self._tasks[stage] = self._bars.add_task(stage, total=rows, completed=done, rate="")

    def advance(self, stage: str, rows: int, rate: str = "") -> None:
        """Counts `rows` more as done, and shows `rate` beside them."""
        self._done[stage] += rows
        if self._bars:
            self._bars.update(self._tasks[stage], advance=rows, rate=rate)
            return
        now = time.monotonic()
        if now - self._last_line[stage] >= _SECONDS_BETWEEN_LINES:
            self._last_line[stage] = now
            self.say(self._line(stage, rate))

    def finish(self, stage: str) -> None:
        """Ends a stage whose number of rows was not known at its start."""
        if self._bars:
            self._bars.update(self._tasks[stage], total=self._done[stage])

    def _line(self, stage: str, rate: str) -> str:
        total = self._total[stage]
        of = f" of {total:,} ({self._done[stage] / max(total, 1):.0%})" if total is not None else ""
        elapsed = time.monotonic() - self._started[stage]
        return f"{stage}: {self._done[stage]:,}{of} rows after {elapsed:,.0f} s{', ' + rate if rate else ''}"
