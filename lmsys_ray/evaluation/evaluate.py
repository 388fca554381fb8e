"""Evaluates what a run predicted against what people preferred."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lmsys_ray.ensemble.blend import normalise
from lmsys_ray.ensemble.blend_methods import Blend, Method
from lmsys_ray.evaluation.blend_fit import Mix, fit_blend, fit_mix
from lmsys_ray.evaluation.cross_fitting import Fitted, Members, cross_fitted, folds_of, unfitted_because
from lmsys_ray.evaluation.labelled_scores import Counts, LabelledScores
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.position_bias import position_bias
from lmsys_ray.metrics import Estimate, at_floor, class_shares, estimate_metrics, estimate_sureness, log_losses
from lmsys_ray.scoring.settings import Settings

# Names with a space, which no member can have.
PRIOR = "class prior"
IN_USE = "blend in use"
FITTED = "fitted blend"
FITTED_METHODS: dict[Method, str] = {"linear": FITTED, "geometric": "fitted geometric", "stacked": "fitted stacked"}

NOTHING, EVERYTHING = "nothing", "weights and temperature"
"""The keys of `Evaluation.fits` for the blend in use and for the linear one with both fitted."""

SMALLEST_SLICE = 30
"""The fewest rows of a slice for which metrics are estimated."""


@dataclass(frozen=True)
class Fit:
    """A blend fitted on all rows, and its metrics out of fold: each row by a blend that was fitted without its fold."""

    blend: Blend
    blended: np.ndarray
    """Probabilities [rows, 3], out of fold."""
    estimate: Estimate
    """The metrics of `blended`."""
    at_bound: bool = False
    """Whether a fitted temperature is at its lower or upper bound."""
    settled: bool = True
    """False if the solver stopped before a minimum."""


@dataclass(frozen=True)
class Slice:
    """Some of the rows; `estimates` is empty where they are too few."""

    rows: int
    prompts: int
    estimates: dict[str, Estimate]
    sureness: Estimate | None = None
    """As `Evaluation.sureness`; None where the rows are too few."""


@dataclass(frozen=True)
class Evaluation:
    """All results; estimates are keyed by member name, `PRIOR`, `IN_USE` or, out of fold, `FITTED_METHODS`."""

    counts: Counts
    prompts: int
    labels: np.ndarray
    predictions: dict[str, np.ndarray]
    """Probabilities [rows, 3], without those of `PRIOR`."""
    overall: dict[str, Estimate]
    slices: dict[str, dict[str, Slice]]
    """For each property of rows, such as `source`: its slices, the largest first."""
    margins: dict[tuple[str, str], Estimate]
    """Paired metrics of the first, a blend, minus those of the second."""
    fits: dict[str, Fit]
    """`NOTHING` for the blend in use, by what was fitted of a linear one up to `EVERYTHING`, and by the other methods;
    `NOTHING` alone where `unfitted`."""
    unfitted: str | None
    """Why there is no fitted blend, if there is none."""
    at_floor: dict[str, int]
    """For each of `predictions`: the rows whose label has a probability below the floor of the log loss."""
    sureness: Estimate
    """How much surer the blend in use is than right, as by `estimate_sureness`."""
    position: dict[str, Estimate]
    """`lmsys_ray.evaluation.position_bias.MEASURES` of the members that scored both orders."""
    trained_on: dict[str, tuple[int, int]]
    """For members that were trained on rows of the run: how many, of how many rows of the run."""
    rejected_log_loss: float | None
    """Log loss of the run's class prior on the labelled rows that it could not score; None if there are none."""
    submission_log_loss: float
    """Log loss of the blend in use on the judged rows and of the class prior on the rejected ones, taken together."""


def evaluate(
    joined: LabelledScores, settings: Settings, trained_on: Mapping[str, tuple[int, int]] | None = None
) -> Evaluation:
    """Evaluates every member, the blend that `settings` describe and fitted ones on the joined rows.

    The class prior in each table is the constant prediction with the lowest log loss on the same rows, so that a member
    which only knows how frequent classes are in a slice shows no gain. `trained_on` is kept as it is.
    """
    unfitted = unfitted_because(joined.labels)
    fits = _fits(joined, settings, None if unfitted else folds_of(joined.labels, joined.prompts))
    fitted = {} if unfitted else {FITTED_METHODS[m]: fits[_key(m)].blended for m in FITTED_METHODS}
    blends = {IN_USE: fits[NOTHING].blended, **fitted}
    predictions = {**joined.members, **blends}
    overall = _estimates(predictions, joined.labels, joined.prompts)
    pairs = [(blend, name) for blend in (IN_USE, FITTED) if blend in blends for name in (PRIOR, *joined.members)]
    pairs += [(blend, IN_USE) for blend in fitted] + [(blend, FITTED) for blend in fitted if blend != FITTED]
    losses = [log_losses(blends[IN_USE], joined.labels), _prior_losses(joined.rejected_labels, settings)]
    return Evaluation(
        counts=joined.counts,
        prompts=len(np.unique(joined.prompts)),
        labels=joined.labels,
        predictions=predictions,
        overall=overall,
        slices={kind: _slices(predictions, joined, names) for kind, names in joined.slices.items()},
        margins={(first, second): overall[first] - overall[second] for first, second in pairs},
        fits=fits,
        unfitted=unfitted,
        at_floor={name: at_floor(probabilities, joined.labels) for name, probabilities in predictions.items()},
        sureness=estimate_sureness(blends[IN_USE], joined.labels, joined.prompts),
        position={n: position_bias(*orders, joined.labels, joined.prompts) for n, orders in joined.orders.items()},
        rejected_log_loss=float(losses[1].mean()) if len(losses[1]) else None,
        trained_on=dict(trained_on or {}),
        submission_log_loss=float(np.concatenate(losses).mean()),
    )


def _key(method: Method) -> str:
    """Returns the key in `Evaluation.fits` of the fitted blend of a method."""
    return EVERYTHING if method == "linear" else method


def _fits(joined: LabelledScores, settings: Settings, folds: np.ndarray | None) -> dict[str, Fit]:
    """Returns the blend in use and, if there are folds, the fitted ones."""
    in_use = settings.blending()
    weights = normalise({name: settings.members[name].weight for name in joined.members})
    blended = in_use.of(joined.members)
    shown = replace(in_use, weights=weights)
    fits = {NOTHING: Fit(shown, blended, estimate_metrics(blended, joined.labels, joined.prompts))}
    if folds is None:
        return fits
    held: dict[str, Callable[[Members, np.ndarray], Mix]] = {EVERYTHING: fit_mix}
    if in_use.method == "linear" and not in_use.prior_weight:
        held = {
            "weights": partial(fit_mix, temperature=in_use.temperature),
            "temperature": partial(fit_mix, weights=weights),
            **held,
        }
    for fitted, fit in held.items():
        mix = fit(joined.members, joined.labels)
        bound = fitted != "weights" and mix.temperature in TEMPERATURES
        fits[fitted] = _fit(joined, Blend(mix.weights, mix.temperature), fit, folds, bound, mix.settled)
    for method in ("geometric", "stacked"):
        fit_method = partial(fit_blend, method)
        blend = fit_method(joined.members, joined.labels)
        fits[method] = _fit(joined, blend, fit_method, folds, blend.temperature in TEMPERATURES)
    return fits


def _fit(
    joined: LabelledScores,
    blend: Blend,
    fit: Callable[[Members, np.ndarray], Fitted],
    folds: np.ndarray,
    at_bound: bool,
    settled: bool = True,
) -> Fit:
    blended = cross_fitted(joined.members, joined.labels, folds, fit)
    return Fit(blend, blended, estimate_metrics(blended, joined.labels, joined.prompts), at_bound, settled)


def _estimates(predictions: dict[str, np.ndarray], labels: np.ndarray, prompts: np.ndarray) -> dict[str, Estimate]:
    prior = np.tile(class_shares(labels), (len(labels), 1))
    return {name: estimate_metrics(p, labels, prompts) for name, p in {PRIOR: prior, **predictions}.items()}


def _slices(predictions: dict[str, np.ndarray], joined: LabelledScores, names: np.ndarray) -> dict[str, Slice]:
    known = names[names != None]  # noqa: E711 - compares each element
    slices = {}
    for name, rows in Counter(known.tolist()).most_common():
        chosen = names == name
        prompts = joined.prompts[chosen]
        estimates, sureness = {}, None
        if rows >= SMALLEST_SLICE:
            sureness = estimate_sureness(predictions[IN_USE][chosen], joined.labels[chosen], prompts)
            estimates = _estimates({n: p[chosen] for n, p in predictions.items()}, joined.labels[chosen], prompts)
        slices[name] = Slice(rows, len(np.unique(prompts)), estimates, sureness)
    return slices


def _prior_losses(labels: np.ndarray, settings: Settings) -> np.ndarray:
    return log_losses(np.tile(settings.prior, (len(labels), 1)), labels)
