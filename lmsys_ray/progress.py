"""Shows how far a run is: bars on a terminal, plain lines now and then where there is none."""

import sys
import time
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

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """The progress of several stages at once, each counted in rows."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._total: dict[str, int | None] = {}
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the bars where there are any."""
        self._console.print(line, markup=False)

    def start(self, stage: str, rows: int | None, done: int = 0) -> None:
        """Begins a stage of `rows` rows (None: not known), of which `done` were done before."""
        self._done[stage], self._total[stage] = done, rows
        self._started[stage] = self._told[stage] = time.monotonic()
        if self._bars:
            self._tasks[stage] = self._bars.add_task(stage, total=rows, completed=done, rate="")

    def advance(self, stage: str, rows: int, rate: str = "") -> None:
        """Counts rows as done; `rate` is shown beside them."""
        self._done[stage] += rows
        if self._bars:
            self._bars.update(self._tasks[stage], advance=rows, rate=rate)
            return
        now = time.monotonic()
        if now - self._told[stage] >= _SECONDS_BETWEEN_LINES:
            self._told[stage] = now
            self.say(self._line(stage, rate))

    def finish(self, stage: str) -> None:
        """Ends a stage whose number of rows was not known before."""
        if self._bars:
            self._bars.update(self._tasks[stage], total=self._done[stage])

    def _line(self, stage: str, rate: str) -> str:
        total = self._total[stage]
        of = f" of {total:,} ({self._done[stage] / max(total, 1):.0%})" if total is not None else ""
        elapsed = time.monotonic() - self._started[stage]
        return f"{stage}: {self._done[stage]:,}{of} rows after {elapsed:,.0f} s{', ' + rate if rate else ''}"
