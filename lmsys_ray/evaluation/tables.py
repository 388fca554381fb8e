"""Shows an evaluation on a terminal."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lmsys_ray.evaluation.evaluate import FITTED, IN_USE, NOTHING, Evaluation, Slice
from lmsys_ray.evaluation.report import verdict
from lmsys_ray.metrics import METRICS, Estimate
from lmsys_ray.storage import AnyPath

_WIDTH_OF_FILES = 160
_DIGITS = (4, 3, 3, 3)
"""Of each metric."""

_POSITION_TITLES = (
    "probability gained by standing first",
    "distance of the two (total variation)",
    "share of rows whose verdict changes",
    "log loss of A/B alone",
    "log loss of B/A alone",
    "log loss of their mean",
)


def show(evaluation: Evaluation, folder: AnyPath) -> None:
    """Prints what was joined, a table for each question, and what lies in `folder` now."""
    console = _terminal()
    for line in _count_lines(evaluation):
        console.print(line)
    console.print(_overall(evaluation))
    for kind, slices in evaluation.slices.items():
        if any(part.estimates for part in slices.values()):
            console.print(_slice_table(kind, slices, list(evaluation.overall)))
        if few := [f"{name} {part.rows}" for name, part in slices.items() if not part.estimates]:
            console.print(f"too few rows to judge by {kind}: {', '.join(few)}")
    console.print(_margin_table(evaluation))
    console.print(_fit_table(evaluation))
    if evaluation.position:
        console.print(_position_table(evaluation))
    for line in _closing_lines(evaluation, folder):
        console.print(line, soft_wrap=True)


def _terminal() -> Console:
    """Returns a console on standard output, wide enough for whole tables where that is no terminal."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=_WIDTH_OF_FILES)


def _closing_lines(evaluation: Evaluation, folder: AnyPath) -> list[str]:
    outcome = verdict(evaluation, FITTED, IN_USE)
    return [
        f"the fitted blend, out of fold, against the blend in use: {outcome}",
        f"to blend the run with it: score.py --config {folder / 'blend.yaml'}",
        f"figures: {folder / 'evaluation.json'}",
        f"reliability diagram: {folder / 'reliability.png'}",
    ]


def _count_lines(evaluation: Evaluation) -> Iterable[str]:
    counts = evaluation.counts
    yield f"judged: {counts.judged:,} rows of {evaluation.prompts:,} prompts, labelled and scored"
    if evaluation.rejected_log_loss is not None:
        loss = f"log loss {evaluation.rejected_log_loss:.4f}"
        yield f"judged apart: {counts.rejected:,} labelled rows that were rejected and got the class prior ({loss})"
    if counts.only_run:
        yield f"in the run alone: {counts.only_run:,} ids"
    if counts.only_labels:
        yield f"in the labels alone: {counts.only_labels:,} ids"
    if counts.unreadable_labels:
        yield f"unreadable: {counts.unreadable_labels:,} rows of the labels"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _overall(evaluation: Evaluation) -> Table:
    columns = ["", *(metric.replace("_", " ") for metric in METRICS)]
    table = _table("all judged rows, 95 % intervals by resampling prompts; the fitted blend out of fold", columns)
    for name, estimate in evaluation.overall.items():
        table.add_row(name, *_cells(estimate))
    return table


def _slice_table(kind: str, slices: dict[str, Slice], names: Sequence[str]) -> Table:
    table = _table(f"log loss by {kind}; the class prior is that of the slice", [kind, "rows", *names])
    for name, part in slices.items():
        if part.estimates:
            table.add_row(name, f"{part.rows:,}", *(_half_width(estimate) for estimate in part.estimates.values()))
    return table


def _margin_table(evaluation: Evaluation) -> Table:
    table = _table("log loss, paired over prompts: below 0 is better", ["", "minus that of", "difference", ""])
    for (first, second), margin in evaluation.margins.items():
        table.add_row(first, second, _cells(margin, sign="+")[0], verdict(evaluation, first, second))
    return table


def _fit_table(evaluation: Evaluation) -> Table:
    columns = ["fitted", *evaluation.fits[NOTHING].mix.weights, "temperature", "log loss", "minus blend in use"]
    table = _table("blends: weights fitted on all rows, log loss out of fold", columns)
    for fitted, fit in evaluation.fits.items():
        weights = [f"{weight:.3f}" for weight in fit.mix.weights.values()]
        over = _cells(fit.estimate - evaluation.fits[NOTHING].estimate, sign="+")[0] if fitted != NOTHING else ""
        table.add_row(fitted, *weights, f"{fit.mix.temperature:.3f}", _cells(fit.estimate)[0], over)
    return table


def _position_table(evaluation: Evaluation) -> Table:
    table = _table("position: rows scored as A/B against the same rows as B/A", ["", *evaluation.position])
    figures = [_figures(estimate) for estimate in evaluation.position.values()]
    for place, title in enumerate(_POSITION_TITLES):
        table.add_row(title, *(_interval(member[:, place], 4, "" if place else "+") for member in figures))
    return table


def _cells(estimate: Estimate, sign: str = "") -> list[str]:
    return [_interval(*pair, sign) for pair in zip(_figures(estimate).T, _DIGITS, strict=True)]


def _figures(estimate: Estimate) -> np.ndarray:
    """Returns value, low and high end of each metric [3, metrics]."""
    return np.vstack([estimate.values, estimate.intervals()])


def _interval(figures: np.ndarray, digits: int, sign: str = "") -> str:
    value, low, high = (f"{figure:{sign}.{digits}f}" for figure in figures)
    return f"{value} [{low}, {high}]"


def _half_width(estimate: Estimate) -> str:
    low, high = estimate.intervals()[:, 0]
    return f"{estimate.values[0]:.3f} ±{(high - low) / 2:.3f}"
