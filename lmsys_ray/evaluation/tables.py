"""Tables of estimates on a terminal."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lmsys_ray.metrics import METRICS, Estimate

_WIDTH_OF_FILES = 160
_DIGITS = (4, 3, 3, 3)
"""Decimal places of each metric."""


def terminal() -> Console:
    """Returns a console on standard output, wide enough for whole tables if that is not a terminal."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDTH_OF_FILES)


def new_table(title: str, columns: Sequence[str]) -> Table:
    """Returns a table without rows, its first column to the left."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def cells(estimate: Estimate, sign: str = "") -> list[str]:
    """Returns each metric with its interval; `sign` is "+" for differences."""
    return [interval(*pair, sign) for pair in zip(figures(estimate).T, _DIGITS, strict=True)]


def figures(estimate: Estimate) -> np.ndarray:
    """Returns value, low and high end of each metric [3, metrics]."""
    return np.vstack([estimate.values, estimate.intervals()])


def interval(figures: np.ndarray, digits: int, sign: str = "") -> str:
    """Returns value, low and high end [3] as text."""
    value, low, high = (f"{figure:{sign}.{digits}f}" for figure in figures)
    return f"{value} [{low}, {high}]"


def in_words(margin: Estimate) -> str:
    """Returns in words whether the first of a difference has the lower log loss, by the interval."""
    low, high = margin.intervals()[:, METRICS.index("log_loss")]
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no clear difference"
