"""Shows an evaluation on a terminal."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.table import Table

from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.evaluation.evaluate import IN_USE, NOTHING, Evaluation, Slice
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.report import BLEND
from lmsys_ray.evaluation.tables import cells, figures, in_words, interval, new_table, terminal
from lmsys_ray.evaluation.verdict import gains, verdict
from lmsys_ray.metrics import METRICS, SMALLEST, Estimate
from lmsys_ray.storage.files import AnyPath

_POSITION_TITLES = (
    "probability gained by standing first",
    "distance of the two (total variation)",
    "share of rows whose verdict changes",
    "log loss of A/B alone",
    "log loss of B/A alone",
    "log loss of their mean",
)


def show(evaluation: Evaluation, folder: AnyPath, score_command: str = "score.py") -> None:
    """Prints the counts, a table for each question, which files are in `folder`, and how to blend the run with them."""
    console = terminal()
    for line in verdict(evaluation):
        console.print(f"verdict: {line}", soft_wrap=True)
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
    for line in _closing_lines(evaluation, folder, score_command):
        console.print(line, soft_wrap=True)


def _closing_lines(evaluation: Evaluation, folder: AnyPath, score_command: str) -> list[str]:
    lines = list(_warnings(evaluation))
    if evaluation.unfitted:
        lines.append(f"no blend was fitted: {evaluation.unfitted}")
    else:
        to_use = f"{score_command} --config {folder / BLEND}"
        if gains(evaluation):
            lines.append(f"to blend the run with the fitted weights and temperature: {to_use}")
        elif evaluation.trained_on:
            lines.append("keep the blend in use: what was fitted favours members that were trained on these rows")
        else:
            lines.append(f"keep the blend in use: what was fitted is not clearly better (to try it: {to_use})")
    return [
        *lines,
        f"figures: {folder / 'evaluation.json'}",
        f"reliability diagram: {folder / 'reliability.png'}",
    ]


def _warnings(evaluation: Evaluation) -> Iterable[str]:
    """Yields warnings about figures that look better than they are."""
    for name, rows in evaluation.at_floor.items():
        if rows:
            cost = f"each counts as {-np.log(SMALLEST):.1f} nats, its true log loss is higher or infinite"
            yield f"{name}: the chosen class has a probability below {SMALLEST:g} in {rows:,} rows; {cost}"
    for fitted, fit in evaluation.fits.items():
        if fit.at_bound:
            bounds = " to ".join(f"{bound:g}" for bound in TEMPERATURES)
            yield f"fitted {fitted}: temperature {fit.blend.temperature:g} is a bound of the search, {bounds}"
        if not fit.settled:
            yield f"fitted {fitted}: the solver stopped before a minimum; there may be a better mix"


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


def _overall(evaluation: Evaluation) -> Table:
    columns = ["", *(metric.replace("_", " ") for metric in METRICS)]
    title = "all judged rows, 95 % intervals by resampling prompts"
    table = new_table(title + ("" if evaluation.unfitted else "; fitted blends out of fold"), columns)
    for name, estimate in evaluation.overall.items():
        shown = f"{name}: {evaluation.fits[NOTHING].blend.method}" if name == IN_USE else name
        table.add_row(shown, *cells(estimate))
    return table


def _slice_table(kind: str, slices: dict[str, Slice], names: Sequence[str]) -> Table:
    table = new_table(f"log loss by {kind}; the class prior is that of the slice", [kind, "rows", *names])
    for name, part in slices.items():
        if part.estimates:
            table.add_row(name, f"{part.rows:,}", *(_half_width(estimate) for estimate in part.estimates.values()))
    return table


def _margin_table(evaluation: Evaluation) -> Table:
    table = new_table("log loss, paired over prompts: below 0 is better", ["", "minus that of", "difference", ""])
    for (first, second), margin in evaluation.margins.items():
        table.add_row(first, second, cells(margin, sign="+")[0], in_words(margin))
    return table


def _fit_table(evaluation: Evaluation) -> Table:
    in_use = evaluation.fits[NOTHING]
    columns = ["fitted", *in_use.blend.weights, "temperature", "log loss", "minus blend in use"]
    table = new_table("blends: weights fitted on all rows (stacked: preference/tie), log loss out of fold", columns)
    for fitted, fit in evaluation.fits.items():
        over = cells(fit.estimate - in_use.estimate, sign="+")[0] if fit is not in_use else ""
        shown = f"nothing, in use: {fit.blend.method}" if fit is in_use else fitted
        table.add_row(shown, *_weights(fit.blend), f"{fit.blend.temperature:.3f}", cells(fit.estimate)[0], over)
    return table


def _weights(blend: Blend) -> list[str]:
    """Returns the weight of each member; of a stacked blend its two coefficients."""
    if not blend.stacking:
        return [_weight(weight) for weight in blend.weights.values()]
    pairs = [blend.stacking.members.get(name) for name in blend.weights]
    return [f"{pair[0]:.2f}/{pair[1]:.2f}" if pair else "" for pair in pairs]


def _weight(weight: float) -> str:
    return f"{weight:.1g}" if 0 < weight < 0.0005 else f"{weight:.3f}"


def _position_table(evaluation: Evaluation) -> Table:
    table = new_table("position: rows scored as A/B against the same rows as B/A", ["", *evaluation.position])
    measured = [figures(estimate) for estimate in evaluation.position.values()]
    for place, title in enumerate(_POSITION_TITLES):
        table.add_row(title, *(interval(member[:, place], 4, "" if place else "+") for member in measured))
    return table


def _half_width(estimate: Estimate) -> str:
    low, high = estimate.intervals()[:, 0]
    return f"{estimate.values[0]:.3f} ±{(high - low) / 2:.3f}"
