"""Histograms, rates over time, and estimates with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from lmsys_ray.ensemble.leaderboard.board import Standing
from lmsys_ray.report.figures.svg import (
    WIDTH,
    circle,
    cut,
    figure,
    line,
    path,
    rectangle,
    short,
    steps,
    text,
    time_axis,
)

_LEFT, _RIGHT, _TOP, _PLOT = 42.0, WIDTH - 10.0, 12.0, 150.0
_BOTTOM = _TOP + _PLOT
SERIES = 6
"""Colours of series, after which they begin again."""


def histogram(key: str, title: str, edges: Sequence[float], counts: Sequence[int], unit: str, note: str) -> Markup:
    """Returns a histogram of rows in bins between `edges` [bins + 1]; `note` describes it."""
    low, high = edges[0], edges[-1]
    top = max([*counts, 1])

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    bars = [
        rectangle(
            x(edges[place]) + 0.4,
            _BOTTOM - _PLOT * count / top,
            x(edges[place + 1]) - x(edges[place]) - 0.8,
            _PLOT * count / top,
            "bar",
            f"{edges[place]:g} to {edges[place + 1]:g}: {count:,} rows",
        )
        for place, count in enumerate(counts)
        if count
    ]
    ticks = [low + step for step in steps(high - low)]
    return figure(
        key,
        title,
        note,
        _BOTTOM + 36,
        [*_rows_axis(top, whole=True), *bars, *_below(ticks, [short(t) for t in ticks], x, unit)],
    )


def rates(key: str, title: str, seconds: float, series: Mapping[str, np.ndarray]) -> Markup:
    """Returns rows a second over the seconds of a start, a line for each member."""
    top = max(float(values.max()) for values in series.values()) or 1.0

    def x(second: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * second / seconds

    lines = []
    for place, values in enumerate(series.values()):
        at = [seconds * number_ / len(values) for number_ in range(len(values) + 1)]
        points = [(x(at[n + side]), _BOTTOM - _PLOT * value / top) for n, value in enumerate(values) for side in (0, 1)]
        lines.append(path(points, f"series s{place % SERIES}"))
    described = "; ".join(f"{name}: at most {values.max():,.1f} rows a second" for name, values in series.items())
    ticks, unit = time_axis(seconds)
    below = _below([at for at, _ in ticks], [name for _, name in ticks], x, f"{unit} of the start")
    return figure(key, title, described, _BOTTOM + 36, [*_rows_axis(top), *lines, *below])


def strengths(key: str, standings: Sequence[Standing]) -> Markup:
    """Returns the strengths of models with their intervals."""
    ends = [
        value
        for s in standings
        for value in (s.strength, s.lower if s.lower is not None else s.strength, s.upper)
        if value is not None
    ]
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1
    left = 128.0

    def x(value: float) -> float:
        return left + (_RIGHT - 8 - left) * (value - low) / (high - low)

    parts, row = [], 19.0
    for place, standing in enumerate(standings):
        y = _TOP + row * place + 8
        assert standing.strength is not None
        parts.append(text(left - 8, y + 3.5, cut(standing.model, 20), "end"))
        if standing.lower is not None and standing.upper is not None:
            parts.append(line(x(standing.lower), y, x(standing.upper), y, "whisker"))
        parts.append(circle(x(standing.strength), y, 3.4, "dot", f"{standing.model}: {standing.strength:.0f}"))
    bottom = _TOP + row * len(standings)
    ticks = (low, (low + high) / 2, high)
    parts += [text(x(tick), bottom + 14, f"{tick:.0f}", "middle", "tick") for tick in ticks]
    parts.append(text((left + _RIGHT) / 2, bottom + 28, "strength, points", "middle", "label"))
    described = f"From {standings[0].model} to {standings[-1].model}; the table has the numbers."
    return figure(key, "Strengths of the models, with 95 % intervals", described, bottom + 34, parts)


def _rows_axis(top: float, whole: bool = False) -> list[Markup]:
    """Returns the axis of rows, or of rows a second, with `whole` numbers alone."""
    found = []
    for tick in steps(top, 4):
        if whole and tick != int(tick):
            continue
        y = _BOTTOM - _PLOT * tick / top
        found += [line(_LEFT, y, _RIGHT, y, "grid"), text(_LEFT - 5, y + 3.5, short(tick), "end", "tick")]
    return found


def _below(ticks: Sequence[float], names: Sequence[str], x: object, label: str) -> list[Markup]:
    assert callable(x)
    marks = [text(x(tick), _BOTTOM + 15, name, "middle", "tick") for tick, name in zip(ticks, names, strict=True)]
    return [*marks, text((_LEFT + _RIGHT) / 2, _BOTTOM + 31, label, "middle", "label")]
