"""Where the time of a start went, as far as the history and the times of its files tell."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmsys_ray.members.protocol import LANES
from lmsys_ray.members.registry import kind_of
from lmsys_ray.moments import moment
from lmsys_ray.report.facts import Facts

MOST_STARTS = 4
"""Starts that are drawn, the last of those that scored."""

_LATER = 5.0
"""Seconds after the end of a start in which its files may be dated, since clocks and rounding differ."""

_LONG, _TIMES = 20.0, 6.0
"""A pause between shards is marked from so many seconds on that is also so many times the usual one."""

_STEPS = 40
"""Steps of the throughput over time."""


@dataclass(frozen=True)
class Bar:
    """Something that took from one second of the start to another; `kind` is a class of the figure."""

    label: str
    begin: float
    end: float
    kind: str


@dataclass
class Lane:
    """What one process, member or replica did."""

    name: str
    bars: list[Bar] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)
    """When shards were written."""
    note: str = ""
    deaths: int = 0
    died_at: list[float] = field(default_factory=list)
    """When deaths were noticed, as far as the history tells: earlier versions counted them alone."""


@dataclass(frozen=True)
class Course:
    """One start, from 0 to `seconds`."""

    began: str
    seconds: float
    ended: str
    lanes: list[Lane]
    rates: Mapping[str, np.ndarray]
    """Rows a second of each member, over equal steps of the start."""


def courses(facts: Facts) -> list[Course]:
    """Returns the last starts that scored anything or took the longest, in their order."""
    starts = facts.manifest.starts
    begins = [moment(start.get("began")) for start in starts]
    found = []
    for place, (start, began) in enumerate(zip(starts, begins, strict=True)):
        if began is None:
            continue
        later = [other for other in begins[place + 1 :] if other is not None]
        course = _course(facts, start, began, min(later, default=float("inf")))
        if course is not None:
            found.append(course)
    return found[-MOST_STARTS:]


def _course(facts: Facts, start: Mapping[str, Any], began: float, until: float) -> Course | None:
    seconds = {str(name): float(value) for name, value in (start.get("seconds") or {}).items()}
    total = seconds.get("total")
    end = until if total is None else min(began + total + _LATER, until)
    ticks = {name: _within(times, began, end) for name, times in facts.scored_at.items()}
    read = sorted(_within(facts.ingested_at, began, end).values())
    latest = max((at for each in ticks.values() for at in each.values()), default=0.0)
    known = sum(seconds.get(stage, 0.0) for stage in ("start of Ray", "ingest", "passes", "join"))
    length = max(total or 0.0, latest, known)
    scoring = [name for name in ticks if ticks[name] or f"pass {name}" in seconds]
    length = max(length, max(read, default=0.0))
    if not length or not (scoring or read or "ingest" in seconds):
        return None
    driver = _driver(seconds, length, read)
    lanes = [driver]
    before = max((bar.end for bar in driver.bars if bar.kind in ("ray", "ingest")), default=0.0)
    for lane in LANES:
        at = before
        for name in scoring:
            if kind_of(facts.settings.members[name]).lane == lane:
                last = max(ticks[name].values(), default=at)
                finish = max(last, at + seconds.get(f"pass {name}", 0.0))
                lanes += _member(start, name, at, finish, sorted(ticks[name].values()))
                at = finish
    rates = {name: _rate(facts, ticks[name], length) for name in scoring if len(ticks[name]) > 1}
    return Course(str(start.get("began")), length, _ended(start), lanes, rates)


def _within(times: Mapping[int, float], began: float, end: float) -> dict[int, float]:
    """Returns the seconds of a start at which shards were written, of those that were written in it."""
    return {shard: at - began for shard, at in times.items() if began <= at < end}


def _driver(seconds: Mapping[str, float], length: float, read: list[float]) -> Lane:
    lane, at = Lane("driver"), 0.0
    for stage, kind in (("start of Ray", "ray"), ("ingest", "ingest")):
        if stage in seconds:
            lane.bars.append(Bar(stage, at, at + seconds[stage], kind))
            at += seconds[stage]
    if "ingest" not in seconds and read:
        lane.bars.append(Bar("ingest, by its shards", read[0], read[-1], "ingest"))
    if "join" in seconds:
        lane.bars.append(Bar("join and outputs", length - seconds["join"], length, "join"))
    return lane


def _member(start: Mapping[str, Any], name: str, begin: float, end: float, ticks: list[float]) -> list[Lane]:
    """Returns the lanes of a member: its pass, and each of its replicas where there are several."""
    lane = Lane(name, [Bar(f"pass {name}", begin, end, "pass")], ticks)
    lane.deaths = int((start.get("deaths") or {}).get(name, 0))
    lane.died_at = [float(at) for at in (start.get("died_at") or {}).get(name, [])]
    gaps = np.diff(ticks)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    for place in np.flatnonzero(gaps > max(_LONG, _TIMES * usual)):
        lane.bars.append(Bar(f"no shard for {gaps[place]:,.0f} s", ticks[place], ticks[place + 1], "wait"))
    if ticks and ticks[0] - begin > 0:
        lane.bars.append(Bar("until the first shard", begin, ticks[0], "load"))
    replicas = (start.get("replicas") or {}).get(name, [])
    if len(replicas) < 2:
        return [lane]
    return [lane, *(_replica(number, each) for number, each in enumerate(replicas, 1))]


def _replica(number: int, values: Mapping[str, Any]) -> Lane:
    begin, end, computed = (float(values[key]) for key in ("began", "ended", "computed"))
    busy = computed / (end - begin) if end > begin else 1.0
    note = f"{values['shards']:,} shards, {min(busy, 1):.0%} busy"
    return Lane(f"replica {number}, {min(busy, 1):.0%}", [Bar(f"replica {number}", begin, end, "replica")], note=note)


def _rate(facts: Facts, ticks: Mapping[int, float], length: float) -> np.ndarray:
    """Returns rows a second over `_STEPS` equal steps, or fewer where there are few shards."""
    steps = min(_STEPS, len(ticks))
    rows = [_rows(facts, shard) for shard in ticks]
    counts, _ = np.histogram(list(ticks.values()), bins=steps, range=(0, length), weights=rows)
    return np.asarray(counts / (length / steps))


def _rows(facts: Facts, shard: int) -> int:
    counts = facts.manifest.ingested
    return facts.manifest.shard_sizes.rows(shard, counts.lines if counts else sys.maxsize)


def _ended(start: Mapping[str, Any]) -> str:
    code, error = start.get("exit"), start.get("error")
    if code == 0:
        return "done"
    return f"ended by: {error}" if error else ("died" if code is None else f"exit code {code}")
