"""How far a stage is, as numbers and as words of any width: pure functions of counts and clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmsys_ray.durations import estimated
from lmsys_ray.scoring.utilization import Utilization


@dataclass
class StageProgress:
    """The progress of ingest or of a pass. Times are those of one monotonic clock, in seconds."""

    stage: str
    of: int | None
    """Rows; None: not known."""
    began: float
    work_of: int = 0
    """The bytes of the shards to score, which stand for their tokens; 0 where rows stand for the work."""
    replicas: int = 0
    """How many replicas are wanted; 0 for a stage without any."""
    rows: int = 0
    tokens: int = 0
    work: int = 0
    ended: float | None = None
    utilization: Utilization = field(default_factory=Utilization)

    def add(self, rows: int, tokens: int = 0, work: int = 0) -> None:
        """Counts rows as done, with their tokens and the bytes of their shard."""
        self.rows += rows
        self.tokens += tokens
        self.work += work

    def facts(self, now: float) -> dict[str, Any]:
        """Returns what is known at `now`, as JSON can hold it; None for what is not known, or does not apply.

        Rates count from when the first replica began to compute. `busy` is the share of their time in which replicas
        compute, and `seconds_left` is by the tokens that are still to be computed.
        """
        now = now if self.ended is None else self.ended
        first = self.utilization.first
        since = now - (self.began if first is None else first)
        alive = self.utilization.alive(now)
        return {
            "stage": self.stage,
            "rows": self.rows,
            "of": self.of,
            "seconds": round(now - self.began, 1),
            "rows_per_second": self._rate(self.rows, since),
            "tokens_per_second": self._rate(self.tokens, since),
            "replicas": alive if self.replicas else None,
            "loading": max(0, self.replicas - alive) if self.replicas else None,
            "busy": round(1 - self.utilization.idle_share(now), 3) if first is not None else None,
            "seconds_left": self._seconds_left(now),
        }

    def _rate(self, count: int, seconds: float) -> float | None:
        return round(count / seconds, 1) if count and seconds > 0 else None

    def _seconds_left(self, now: float) -> float | None:
        if self.ended is not None:
            return 0.0
        if self.replicas:
            left = self.utilization.seconds_left(self.work, self.work_of - self.work, now)
            return None if left is None else round(left, 1)
        if not self.of or not self.rows:
            return None
        return round((now - self.began) * max(0, self.of - self.rows) / self.rows, 1)


def line(facts: Mapping[str, Any]) -> str:
    """Returns a stage's facts as a line of a log."""
    return f"{facts['stage']}: " + ", ".join([_counts(facts, " of ", share=True), *_details(facts)])


def words(facts: Mapping[str, Any], width: int) -> str:
    """Returns a stage's facts, without its name, in at most `width` characters: what matters most comes first."""
    text = _counts(facts, "/")
    for part in _details(facts):
        if len(text) + 2 + len(part) > width:
            break
        text += f"  {part}"
    return text


def _counts(facts: Mapping[str, Any], of: str, share: bool = False) -> str:
    rows, total = facts["rows"], facts["of"]
    text = f"{rows:,}" if total is None else f"{rows:,}{of}{total:,}"
    if not share:
        return text
    percent = "" if total is None else f" ({rows / max(total, 1):.0%})"
    return f"{text}{percent} rows after {facts['seconds']:,.0f} s"


def _details(facts: Mapping[str, Any]) -> Sequence[str]:
    found = []
    if facts["seconds_left"]:
        found.append(f"{estimated(facts['seconds_left'])} left")
    rates = {unit: facts[f"{unit}_per_second"] for unit in ("rows", "tokens")}
    found += [f"{rate:,.0f} {unit}/s" for unit, rate in rates.items() if rate]
    replicas, loading = facts["replicas"], facts["loading"]
    if replicas:
        found.append(f"{replicas} {'replica' if replicas == 1 else 'replicas'} {facts['busy']:.0%} busy")
    if loading:
        found.append(f"{loading} loading")
    return found
