"""The triangle of P(a), P(b) and P(tie), with the rows of a run counted in small triangles."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from lmsys_ray.report.counts import SIDE, Spread
from lmsys_ray.report.figures.svg import WIDTH, circle, figure, line, path, text

LEVELS = 8
"""Shades, equal steps of the logarithm of a triangle's rows."""

_SIDE = 270.0
_LEFT, _TOP = (WIDTH - _SIDE) / 2, 26.0
_HEIGHT = _SIDE * math.sqrt(3) / 2


def triangle(key: str, name: str, spread: Spread) -> Markup:
    """Returns the figure of a member or blend."""
    parts = [*_shades(spread), *_frame()]
    mean = spread.sums / max(spread.rows, 1)
    parts.append(circle(*_place(mean), 4, "mean", f"mean: {_shares(mean)}"))
    likeliest = ", ".join(
        f"{count:,} rows {what}" for count, what in zip(spread.likeliest, ("A", "B", "a tie"), strict=True)
    )
    described = f"Mean probabilities {_shares(mean)}. Likeliest: {likeliest}. Darker: more rows; the dot is the mean."
    return figure(key, f"Probabilities of {name}", described, _TOP + _HEIGHT + 26, parts)


def _shares(mean: np.ndarray) -> str:
    return ", ".join(f"{what} {value:.1%}" for what, value in zip(("A", "B", "tie"), mean, strict=True))


def _place(p: np.ndarray) -> tuple[float, float]:
    """Returns where probabilities [3] lie: A at the left, B at the right, a tie at the top."""
    return _LEFT + _SIDE * float(p[1] + p[2] / 2), _TOP + _HEIGHT * (1 - float(p[2]))


def _shades(spread: Spread) -> list[Markup]:
    largest = int(spread.cells.max())
    drawn: dict[int, list[str]] = {}
    for a, b, down in np.argwhere(spread.cells):
        count = int(spread.cells[a, b, down])
        level = 1 + int((LEVELS - 1) * math.log(count) / math.log(largest)) if largest > 1 else LEVELS
        corner = np.array([a, b, SIDE - 1 - down - a - b])
        moved = 1 - np.eye(3, dtype=int) if down else np.eye(3, dtype=int)
        points = [_place((corner + step) / SIDE) for step in moved]
        drawn.setdefault(level, []).append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
    return [Markup('<path d="{}" class="heat h{}"/>').format("".join(drawn[level]), level) for level in sorted(drawn)]


def _frame() -> list[Markup]:
    a, b, tie = (_place(corner) for corner in np.eye(3))
    middle = _place(np.full(3, 1 / 3))
    borders = [np.array([0.5, 0.5, 0]), np.array([0.5, 0, 0.5]), np.array([0, 0.5, 0.5])]
    return [
        path([a, b, tie], "frame", closed=True),
        *(line(*middle, *_place(border), "grid") for border in borders),
        text(a[0], a[1] + 16, "A preferred", "middle", "strong a"),
        text(b[0], b[1] + 16, "B preferred", "middle", "strong b"),
        text(tie[0], tie[1] - 10, "tie", "middle", "strong tie"),
    ]
