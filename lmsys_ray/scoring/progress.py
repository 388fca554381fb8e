"""Shows the progress of a run: bars on a terminal, a plain line every few seconds elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmsys_ray.durations import duration
from lmsys_ray.moments import as_text
from lmsys_ray.polling import PollThread
from lmsys_ray.printable import printable
from lmsys_ray.scoring.stage_progress import StageProgress, line, words

Log = Literal["text", "json", "quiet"]
"""How a run is told: in words, as one JSON object a line, or only what must not be missed."""

_SECONDS_BETWEEN_LINES = 10.0

_SILENT_SECONDS = 25.0
"""After this long without a line, one is printed that says what is under way."""

_NEVER_QUIET = ("warning", "rejects", "submission: /", "submission: s3:", "submission: gs:", "error")

_BAR_WIDTH, _LEAST_WIDTH_FOR_BARS = 20, 60


class Display:
    """The progress of several stages at once, each counted in rows."""

    def __init__(self, log: Log = "text") -> None:
        self._log = log
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bars: Live | None = None
        self._stages: dict[str, StageProgress] = {}
        self._last_line: dict[str, float] = {}
        self._doing: dict[str, float] = {}
        """What is under way, and since when; the latest comes last."""
        self._spoke = time.monotonic()
        self._thread = PollThread("display", 1.0, self._break_silence)

    def __enter__(self) -> Display:
        if self._log == "text" and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bars = Live(get_renderable=self._shown, console=self._console, refresh_per_second=2)
            self._bars.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.cancel()
        if self._bars:
            self._bars.stop()

    def say(self, text: str) -> None:
        """Prints a line, above the bars where there are any."""
        self._spoke = time.monotonic()
        if self._log == "json":
            self._print_json({"event": "message", "text": text})
        elif self._log == "text" or text.startswith(_NEVER_QUIET):
            self._console.print(printable(text), markup=False)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Surrounds what may take long; a line names it if nothing else is printed for half a minute."""
        self._doing[what] = time.monotonic()
        try:
            yield
        finally:
            del self._doing[what]

    def begin(self, stage: str, rows: int | None, work: int = 0, replicas: int = 0) -> StageProgress:
        """Begins a stage of `rows` rows (None: not known), and of `work` bytes that `replicas` replicas share."""
        now = time.monotonic()
        self._stages[stage] = progress = StageProgress(stage, rows, now, work, replicas)
        self._last_line[stage] = now
        return progress

    def show(self, progress: StageProgress) -> None:
        """Shows how far a stage is, unless a line about it was printed a moment ago."""
        now = time.monotonic()
        if not self._bars and now - self._last_line[progress.stage] >= _SECONDS_BETWEEN_LINES:
            self._tell(progress, now)

    def finish(self, progress: StageProgress) -> None:
        """Ends a stage: its time stands still, and its rows are all that there were."""
        progress.ended = time.monotonic()
        if progress.of is None:
            progress.of = progress.rows

    def show_activity(self, now: float) -> None:
        """Prints what is under way and how far it is, except on a terminal with bars, which show that."""
        self._spoke = now
        under_way = list(self._doing.items())
        if not under_way or self._bars:
            return
        what, since = under_way[-1]
        named = what.removeprefix("pass ").split(", ")
        stages = [stage for name, stage in self._stages.items() if name in named and stage.ended is None]
        for stage in stages:
            self._tell(stage, now)
        if not stages and self._log == "json":
            self._print_json({"event": "waiting", "for": what, "seconds": round(now - since, 1)})
        elif not stages:
            self.say(_stamped(f"still at work: {what}, for {now - since:,.0f} s"))

    def _break_silence(self) -> None:
        if time.monotonic() - self._spoke >= _SILENT_SECONDS:
            self.show_activity(time.monotonic())

    def _tell(self, progress: StageProgress, now: float) -> None:
        self._spoke = self._last_line[progress.stage] = now
        facts = progress.facts(now)
        if self._log == "json":
            self._print_json({"event": "progress", **facts})
        else:
            self.say(_stamped(line(facts)))

    def _print_json(self, values: Mapping[str, Any]) -> None:
        print(json.dumps({"time": as_text(), **values}), flush=True)

    def _shown(self) -> Group:
        now, stages = time.monotonic(), [*self._stages.values()]
        shown: list[Table | Text] = [table(stages, now, self._console.width)] if stages else []
        if self._doing and all(stage.ended is not None for stage in stages):
            what, since = [*self._doing.items()][-1]
            shown.append(Text(f"{what} … {duration(now - since)}", no_wrap=True, overflow="ellipsis"))
        return Group(*shown)


def table(stages: list[StageProgress], now: float, width: int) -> Table:
    """Returns a line for each stage, at most `width` wide: its name, a bar where there is room, words."""
    grid = Table.grid(padding=(0, 1))
    names = max((len(stage.stage) for stage in stages), default=0)
    names = min(names, max(8, width // 3))
    with_bars = width >= _LEAST_WIDTH_FOR_BARS
    room = width - names - 1 - (_BAR_WIDTH + 1 if with_bars else 0)
    for stage in stages:
        facts = stage.facts(now)
        bar = ProgressBar(total=stage.of, completed=stage.rows, width=_BAR_WIDTH, pulse=stage.of is None)
        name, text = Text(printable(stage.stage)[:names]), Text(words(facts, room))
        grid.add_row(*((name, bar, text) if with_bars else (name, text)))
    return grid


def _stamped(text: str) -> str:
    """Returns a line of a log with the time of day."""
    return f"{time.strftime('%H:%M:%S')} {text}"
