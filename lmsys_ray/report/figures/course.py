"""The timeline of a start: a lane for the driver, for each member and for each of several replicas."""

from __future__ import annotations

from markupsafe import Markup

from lmsys_ray.report.figures.svg import WIDTH, cut, figure, line, path, rectangle, text, time_axis
from lmsys_ray.report.timeline import Course, Lane

_LEFT, _RIGHT, _TOP, _ROW = 92.0, WIDTH - 12.0, 10.0, 26.0
_MOST_LANES = 40
_MOST_TICKS = 400
"""Marks of shards in a lane, evenly chosen of more."""


def timeline(key: str, course: Course) -> Markup:
    """Returns the figure of a start."""
    lanes = course.lanes[:_MOST_LANES]

    def x(second: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(second / course.seconds, 0.0), 1.0)

    bottom = _TOP + _ROW * len(lanes)
    parts = []
    ticks, unit = time_axis(course.seconds)
    for tick, name in ticks:
        parts += [
            line(x(tick), _TOP, x(tick), bottom, "grid"),
            text(x(tick), bottom + 14, name, "middle", "tick"),
        ]
    for place, lane in enumerate(lanes):
        y = _TOP + _ROW * place + 4
        parts.append(text(_LEFT - 8, y + 13, cut(lane.name, 16), "end"))
        for bar in lane.bars:
            shown = f"{bar.label}: {bar.begin:,.1f} to {bar.end:,.1f} s"
            height, top = (18.0, y) if bar.kind not in ("wait", "load") else (6.0, y + 12)
            parts.append(rectangle(x(bar.begin), top, x(bar.end) - x(bar.begin), height, bar.kind, shown))
        step = max(1, len(lane.ticks) // _MOST_TICKS)
        parts += [line(x(tick), y + 1, x(tick), y + 8, "shard") for tick in lane.ticks[::step]]
        for at in lane.died_at:
            parts += _cross(x(at), y + 9)
    parts.append(text((_LEFT + _RIGHT) / 2, bottom + 30, f"{unit} of the start", "middle", "label"))
    title = f"Timeline of the start of {course.began}"
    return figure(key, title, " ".join(map(told, lanes)), bottom + 36, parts)


def told(lane: Lane) -> str:
    """Returns a sentence of what a lane shows."""
    bars = "; ".join(f"{bar.label} from {bar.begin:,.1f} to {bar.end:,.1f} s" for bar in lane.bars) or "nothing"
    more = f", {len(lane.ticks):,} shards" if lane.ticks else ""
    more += f", {lane.deaths:,} {'process' if lane.deaths == 1 else 'processes'} died" if lane.deaths else ""
    more += f" (noticed at {', '.join(f'{at:,.0f}' for at in lane.died_at)} s)" if lane.died_at else ""
    return f"{lane.name}: {bars}{more}{', ' + lane.note if lane.note else ''}."


def _cross(x: float, y: float) -> list[Markup]:
    return [path([(x - 4, y - 4), (x + 4, y + 4)], "death"), path([(x - 4, y + 4), (x + 4, y - 4)], "death")]
