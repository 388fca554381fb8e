"""Reliability diagrams: whether what was predicted with 60 % happened in 60 % of the rows."""

from __future__ import annotations

import math

from markupsafe import Markup

from lmsys_ray.report.counts import BINS, Reliability
from lmsys_ray.report.figures.svg import WIDTH, circle, figure, line, path, text

_SIDE, _LEFT, _TOP = 270.0, 56.0, 12.0
_FEWEST = 10
"""Rows of a bin that is shown."""

_Z = 1.959963984540054
"""The normal quantile of 95 % intervals."""

_CLASSES = (("a", "A preferred"), ("b", "B preferred"), ("tie", "tie"))


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Returns the 95 % interval of an observed share (Wilson 1927)."""
    middle = (share + _Z**2 / (2 * rows)) / (1 + _Z**2 / rows)
    reach = _Z * math.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2)) / (1 + _Z**2 / rows)
    return middle - reach, middle + reach


def diagram(key: str, name: str, found: Reliability) -> Markup:
    """Returns the figure of a member or blend: a line for each class, in bins of equal width."""
    parts = [
        line(_x(0), _y(0), _x(1), _y(1), "grid dashed"),
        path([(_x(0), _y(1)), (_x(0), _y(0)), (_x(1), _y(0))], "frame"),
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [text(_x(tick), _y(0) + 15, f"{tick:.0%}", "middle", "tick")]
        parts += [text(_x(0) - 6, _y(tick) + 4, f"{tick:.0%}", "end", "tick")]
    told = []
    for place, (kind, what) in enumerate(_CLASSES):
        points = [
            (total / rows, happened / rows, rows) for rows, total, happened in found.sums[place] if rows >= _FEWEST
        ]
        for predicted, observed, rows in points:
            low, high = wilson(observed, rows)
            parts.append(line(_x(predicted), _y(low), _x(predicted), _y(high), f"whisker {kind}"))
        if points:
            parts.append(path([(_x(p), _y(o)) for p, o, _ in points], f"curve {kind}"))
        parts += [
            circle(_x(p), _y(o), 2.6, f"dot {kind}", f"{what}: predicted {p:.1%}, happened {o:.1%}, {int(rows):,} rows")
            for p, o, rows in points
        ]
        told += [f"{what}: predicted {p:.0%}, happened {o:.0%}" for p, o, _ in points]
        parts.append(text(_x(0.03), _y(0.95 - 0.065 * place), what, "start", f"strong {kind}"))
    parts.append(text(_x(0.5), _y(0) + 31, "predicted probability", "middle", "label"))
    turned = Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle" class="label">{}</text>')
    parts.append(turned.format(int(_TOP + _SIDE / 2), "observed share"))
    described = f"{'; '.join(told)}." if told else f"No bin of {BINS} has {_FEWEST} rows."
    return figure(key, f"Reliability of {name}", described, _TOP + _SIDE + 38, parts)


def _x(share: float) -> float:
    return _LEFT + _SIDE * share


def _y(share: float) -> float:
    return _TOP + _SIDE * (1 - share)


assert _LEFT + _SIDE < WIDTH
