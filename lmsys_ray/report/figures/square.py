"""The square of two differences of probabilities, with rows counted in small squares."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from lmsys_ray.report.figures.svg import figure, line, number, path, text
from lmsys_ray.report.figures.triangle import LEVELS

_SIDE, _LEFT, _TOP = 250.0, 62.0, 12.0
_TICKS = ((0, "-1"), (0.5, "0"), (1, "1"))


def square(key: str, title: str, described: str, grid: np.ndarray, across: str, upwards: str) -> Markup:
    """Returns counts [bins, bins] from -1 to 1 both ways: the first index to the right, the second upwards."""
    size, largest = _SIDE / len(grid), max(int(grid.max()), 2)
    cells: dict[int, list[str]] = {}
    for i, j in np.argwhere(grid):
        level = 1 + int((LEVELS - 1) * np.log(grid[i, j]) / np.log(largest))
        x, y = _LEFT + i * size, _TOP + _SIDE - (j + 1) * size
        cells.setdefault(level, []).append(f"M{number(x)} {number(y)}h{size:g}v{size:g}h-{size:g}Z")
    parts = [Markup('<path d="{}" class="heat h{}"/>').format("".join(cells[n]), n) for n in sorted(cells)]
    parts += [
        line(_LEFT, _TOP + _SIDE, _LEFT + _SIDE, _TOP, "grid"),
        path([(_LEFT, _TOP), (_LEFT, _TOP + _SIDE), (_LEFT + _SIDE, _TOP + _SIDE)], "frame"),
        *(
            text(_LEFT + _SIDE * f, _TOP + _SIDE + 15, n, "middle", "tick")
            for f, n in ((0, "-1"), (0.5, "0"), (1, "1"))
        ),
        *(text(_LEFT - 6, _TOP + _SIDE * (1 - f) + 4, n, "end", "tick") for f, n in ((0, "-1"), (0.5, "0"), (1, "1"))),
        text(_LEFT + _SIDE / 2, _TOP + _SIDE + 31, across, "middle", "label"),
    ]
    turned = Markup('<text transform="translate(18 {}) rotate(-90)" text-anchor="middle" class="label">{}</text>')
    parts.append(turned.format(number(_TOP + _SIDE / 2), upwards))
    return figure(key, title, described, _TOP + _SIDE + 38, parts)
