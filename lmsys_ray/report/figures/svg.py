"""What all figures are made of: shapes and texts of SVG, escaped, and axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from lmsys_ray.printable import printable

WIDTH = 360
"""Units of a figure's width, so that its texts can be read on a telephone of as many pixels."""

_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))


def number(value: float) -> str:
    """Returns a coordinate with one decimal place."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def text(x: float, y: float, value: str, anchor: str = "start", kind: str = "") -> Markup:
    """Returns a text whose start, middle or end lies at `x`; y is its base line."""
    found = Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>')
    return found.format(number(x), number(y), anchor, kind, printable(value))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Returns a straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(*map(number, (x1, y1, x2, y2)), kind)


def rectangle(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    """Returns a rectangle, with a text that shows where a pointer rests on it."""
    shown = Markup("<title>{}</title>").format(printable(title)) if title else Markup()
    place = map(number, (x, y, max(width, 0.5), height))
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}">{}</rect>').format(*place, kind, shown)


def circle(x: float, y: float, radius: float, kind: str, title: str = "") -> Markup:
    """Returns a filled circle."""
    shown = Markup("<title>{}</title>").format(printable(title)) if title else Markup()
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(
        *map(number, (x, y, radius)), kind, shown
    )


def path(points: Iterable[Sequence[float]], kind: str, closed: bool = False) -> Markup:
    """Returns a line through points (x, y)."""
    drawn = " ".join(f"{'L' if place else 'M'}{number(x)} {number(y)}" for place, (x, y) in enumerate(points))
    return Markup('<path d="{}" class="{}"/>').format(drawn + ("Z" if closed else ""), kind)


def figure(key: str, title: str, described: str, height: float, parts: Iterable[Markup]) -> Markup:
    """Returns a figure with a name and a description for those who do not see it; `key` is unique on the page."""
    head = Markup(
        '<svg viewBox="0 0 {0} {1}" role="img" aria-labelledby="{2}-title {2}-text">'
        '<title id="{2}-title">{3}</title><desc id="{2}-text">{4}</desc>'
    ).format(WIDTH, number(height), key, printable(title), printable(described))
    return head + Markup().join(parts) + Markup("</svg>")


def steps(largest: float, most: int = 5) -> list[float]:
    """Returns round numbers from 0 up to `largest`, at most `most` and one."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [place * step for place in range(math.floor(largest / step * (1 + 1e-9)) + 1)]


def time_axis(seconds: float) -> tuple[list[tuple[float, str]], str]:
    """Returns round moments up to `seconds`, in seconds, with their names, and the unit of these."""
    unit, size = next((each for each in _UNITS if seconds >= 3 * each[1]), _UNITS[-1])
    return [(tick * size, short(tick)) for tick in steps(seconds / size)], unit


def short(value: float) -> str:
    """Returns a number for an axis: 12k for 12,000."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def cut(value: str, most: int) -> str:
    """Returns a printable text of at most `most` characters, the end of a longer one replaced."""
    value = printable(value)
    return value if len(value) <= most else value[: most - 1] + "…"
