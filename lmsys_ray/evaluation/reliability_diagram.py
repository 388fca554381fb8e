"""Draws reliability diagrams: whether events predicted with a probability of 60 % happen in 60 % of the rows."""

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from lmsys_ray.evaluation.evaluate import FITTED_METHODS, Evaluation
from lmsys_ray.metrics import reliability

_COLOURS = {"A preferred": "#0072B2", "B preferred": "#D55E00", "tie": "#009E73"}
"""Distinguishable for colour-blind readers (Okabe and Ito)."""

_MARKERS = ("o", "s", "^")
_LINES: dict[str, Any] = {"markersize": 4, "linewidth": 1.3, "elinewidth": 0.8}
_MOST_COLUMNS = 4
_GREY = "#666666"


def draw_reliability(evaluation: Evaluation, path: Path) -> None:
    """Writes a PNG with a panel for every member and blend.

    The upper part shows the observed share of each class over its predicted probability, in bins with equal numbers of
    rows, with 95 % intervals (Wilson); the lower part, how often each probability is predicted.
    """
    names = list(evaluation.predictions)
    columns = min(len(names), _MOST_COLUMNS)
    rows = ceil(len(names) / columns)
    figure = Figure(figsize=(3.6 * columns, 4.9 * rows + 0.7), dpi=160, layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3.4, 1] * rows)
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        curves = figure.add_subplot(grid[2 * row, column])
        counts = figure.add_subplot(grid[2 * row + 1, column], sharex=curves)
        _draw_curves(curves, evaluation, name)
        _draw_counts(counts, evaluation.predictions[name])
        if column == 0:
            curves.set_ylabel("observed share")
            counts.set_ylabel("rows")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, format="png")


def _draw_curves(axes: Axes, evaluation: Evaluation, name: str) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="perfect", zorder=1)
    probabilities, labels = evaluation.predictions[name], evaluation.labels
    bins = int(np.clip(len(labels) // 50, 3, 10))
    for place, ((title, colour), marker) in enumerate(zip(_COLOURS.items(), _MARKERS, strict=True)):
        predicted, observed, count = reliability(probabilities[:, place], labels == place, bins)
        errors = np.abs(_wilson(observed, count) - observed)
        axes.errorbar(predicted, observed, errors, label=title, color=colour, marker=marker, **_LINES)
    loss, _, _, gap = evaluation.overall[name].values
    title = f"{name}, out of fold" if name in FITTED_METHODS.values() else name
    axes.set_title(f"{title}\nlog loss {loss:.4f}, calibration error {gap:.3f}", fontsize=9.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.tick_params(labelbottom=False)
    _plain(axes)


def _draw_counts(axes: Axes, probabilities: np.ndarray) -> None:
    edges = np.linspace(0, 1, 26).tolist()
    for place, colour in enumerate(_COLOURS.values()):
        axes.hist(probabilities[:, place], bins=edges, histtype="step", color=colour, linewidth=1.1)
    axes.set_xlabel("predicted probability")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _wilson(shares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the 95 % interval of each observed share [2, bins]."""
    tests = [binomtest(round(share * count), int(count)) for share, count in zip(shares, counts, strict=True)]
    intervals = [test.proportion_ci(method="wilson") for test in tests]
    return np.array([[interval.low, interval.high] for interval in intervals]).T
