"""Shows an evaluation on a terminal."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lmsys_ray.evaluation.evaluate import FITTED, IN_USE, NOTHING, Evaluation, Slice
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.report import BLEND, verdict
from lmsys_ray.metrics import METRICS, SMALLEST, Estimate
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
    if not evaluation.unfitted:
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
    lines = list(_warnings(evaluation))
    if evaluation.unfitted:
        lines.append(f"no blend was fitted: {evaluation.unfitted}")
    else:
        lines.append(f"the fitted blend, out of fold, against the blend in use: {verdict(evaluation, FITTED, IN_USE)}")
        lines.append(f"to blend the run with it: score.py --config {folder / BLEND}")
    return [
        *lines,
        f"figures: {folder / 'evaluation.json'}",
        f"reliability diagram: {folder / 'reliability.png'}",
    ]


def _warnings(evaluation: Evaluation) -> Iterable[str]:
    """Yields what makes figures less than they look."""
    for name, rows in evaluation.at_floor.items():
        if rows:
            cost = f"each counts as {-np.log(SMALLEST):.1f} nats, its true log loss is higher or infinite"
            yield f"{name}: the chosen class has a probability below {SMALLEST:g} in {rows:,} rows; {cost}"
    for fitted, fit in evaluation.fits.items():
        if fit.at_bound:
            bounds = " to ".join(f"{bound:g}" for bound in TEMPERATURES)
            yield f"fitted {fitted}: temperature {fit.mix.temperature:g} is a bound of what is tried, {bounds}"
        if not fit.mix.settled:
            yield f"fitted {fitted}: the solver stopped before it came to a minimum; there may be a better mix"


def _count_lines(evaluation: Evaluation) -> Iterable[str]:
    counts = evaluation.counts
    yield f"judged: {counts.judged:,} rows of {evaluation.prompts:,} prompts, labelled and scored"
    if evaluation.rejected_log_loss is not None:
        loss = f"log loss {evaluation.rejected_log_loss:.4f}"
        yield f"judged apart: {counts.rejected:,} labelled rows that were rejected and got the class prior ({loss})"
        both = f"{counts.judged + counts.rejected:,} rows, {counts.rejected:,} of them the class prior"
        yield f"blend in use on {both}: log loss {evaluation.submission_log_loss:.4f}; all tables are without these"
    if counts.set_aside:
        yield f"not judged: {counts.set_aside:,} labelled rows of the blend that a member of weight 0 could not score"
    if counts.priors:
        yield f"class priors in the run: {counts.priors:,} of {counts.run:,} ids, labelled or not"
    if counts.only_run:
        yield f"in the run alone: {counts.only_run:,} ids"
    if counts.only_labels:
        yield f"in the labels alone: {counts.only_labels:,} ids"
    if counts.ids_as_floats:
        yield f"written as floats in the labels (123.0 for 123): {counts.ids_as_floats:,} ids, taken as whole numbers"
    if counts.unreadable_labels:
        yield f"unreadable: {counts.unreadable_labels:,} rows of the labels"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _overall(evaluation: Evaluation) -> Table:
    columns = ["", *(metric.replace("_", " ") for metric in METRICS)]
    title = "all judged rows, 95 % intervals by resampling prompts"
    table = _table(title + ("" if evaluation.unfitted else "; the fitted blend out of fold"), columns)
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
        weights = [_weight(weight) for weight in fit.mix.weights.values()]
        over = _cells(fit.estimate - evaluation.fits[NOTHING].estimate, sign="+")[0] if fitted != NOTHING else ""
        table.add_row(fitted, *weights, f"{fit.mix.temperature:.3f}", _cells(fit.estimate)[0], over)
    return table


def _weight(weight: float) -> str:
    return f"{weight:.1g}" if 0 < weight < 0.0005 else f"{weight:.3f}"


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
