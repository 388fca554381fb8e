"""Judges what a run predicted against what people preferred."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.blend import normalised
from lmsys_ray.config import Settings
from lmsys_ray.evaluation.fitting import Mix, cross_fitted, fit_mix
from lmsys_ray.evaluation.joined import Counts, Joined
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.position import position_bias
from lmsys_ray.metrics import Estimate, at_floor, class_shares, judge, log_losses
from lmsys_ray.training.folds import grouped_folds

# Names with a space, which no member can have.
PRIOR = "class prior"
IN_USE = "blend in use"
FITTED = "fitted blend"

NOTHING, EVERYTHING = "nothing", "weights and temperature"
"""The first and the last key of `Evaluation.fits`."""

FOLDS = 5
"""Folds of the fitted blends; fewer where there are not enough rows."""

SMALLEST_SLICE = 30
"""Rows below which a slice is counted and not judged."""


@dataclass(frozen=True)
class Fit:
    """A mix fitted on all rows, and its worth out of fold: each row blended by a mix fitted without the row's fold."""

    mix: Mix
    blended: np.ndarray
    """Probabilities [rows, 3], out of fold."""
    estimate: Estimate
    """Of `blended`."""
    at_bound: bool
    """Whether a fitted temperature is as low or as high as it is let become."""


@dataclass(frozen=True)
class Slice:
    """Some of the rows; `estimates` is empty where they are too few to judge."""

    rows: int
    prompts: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Evaluation:
    """All that was found; estimates are keyed by member name or `PRIOR`, `IN_USE`, `FITTED` (which is out of fold)."""

    counts: Counts
    prompts: int
    labels: np.ndarray
    predictions: dict[str, np.ndarray]
    """Probabilities [rows, 3], those of `PRIOR` left out."""
    overall: dict[str, Estimate]
    slices: dict[str, dict[str, Slice]]
    """For each way to tell rows apart, such as `source`: its slices, the largest first."""
    margins: dict[tuple[str, str], Estimate]
    """Metrics of the first, a blend, minus those of the second; paired."""
    fits: dict[str, Fit]
    """Keyed by what was fitted, from `NOTHING`, the blend in use, to `EVERYTHING`; `NOTHING` alone where `unfitted`."""
    unfitted: str | None
    """Why there is no fitted blend, where there is none."""
    at_floor: dict[str, int]
    """Of each of `predictions`: rows whose label has a probability so small, or 0, that the log loss is cut off."""
    position: dict[str, Estimate]
    """`lmsys_ray.evaluation.position.MEASURES` of the members that scored both orders."""
    rejected_log_loss: float | None
    """Log loss of the run's class prior on the labelled rows that it could not score; None where there are none."""
    submission_log_loss: float
    """Log loss of the blend in use on the judged rows and of the class prior on the rejected ones, taken together."""


def evaluate(joined: Joined, settings: Settings) -> Evaluation:
    """Judges every member, the blend that `settings` describe and fitted ones on the joined rows.

    The class prior beside them is the constant answer of least log loss on the very rows of a table, so that a member
    that merely knows which classes are frequent in a slice does not pass for more.
    """
    unfitted = _unfitted(joined)
    fits = _fits(joined, settings, None if unfitted else _folds(joined))
    blends = {IN_USE: fits[NOTHING].blended} | ({} if unfitted else {FITTED: fits[EVERYTHING].blended})
    predictions = {**joined.members, **blends}
    overall = _estimates(predictions, joined.labels, joined.prompts)
    pairs = [(blend, name) for blend in blends for name in joined.members]
    pairs += [] if unfitted else [(FITTED, IN_USE)]
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
        position={n: position_bias(*orders, joined.labels, joined.prompts) for n, orders in joined.orders.items()},
        rejected_log_loss=float(losses[1].mean()) if len(losses[1]) else None,
        submission_log_loss=float(np.concatenate(losses).mean()),
    )


def _unfitted(joined: Joined) -> str | None:
    """Returns why the rows cannot be cut into folds, across which blends are fitted and judged; None where they can."""
    for name, rows in zip(CLASSES, np.bincount(joined.labels, minlength=len(CLASSES)), strict=True):
        if rows == 1:
            return f"class {name} has 1 labelled row; fitted blends are judged across folds, which takes 2 of a class"
    return None


def _fits(joined: Joined, settings: Settings, folds: np.ndarray | None) -> dict[str, Fit]:
    """Returns the blend in use and, where there are folds, the fitted ones."""
    weights = normalised({name: settings.members[name].weight for name in joined.members})
    temperature = settings.temperature
    in_use = Mix(weights, temperature)
    blended = in_use.of(joined.members)
    fits = {NOTHING: Fit(in_use, blended, judge(blended, joined.labels, joined.prompts), at_bound=False)}
    if folds is None:
        return fits
    held: dict[str, tuple[dict[str, float] | None, float | None]] = {
        "weights": (None, temperature),
        "temperature": (weights, None),
        EVERYTHING: (None, None),
    }
    for fitted, (held_weights, held_temperature) in held.items():
        mix = fit_mix(joined.members, joined.labels, held_weights, held_temperature)
        blended = cross_fitted(joined.members, joined.labels, folds, held_weights, held_temperature)
        bound = held_temperature is None and mix.temperature in TEMPERATURES
        fits[fitted] = Fit(mix, blended, judge(blended, joined.labels, joined.prompts), bound)
    return fits


def _folds(joined: Joined) -> np.ndarray:
    """Returns the fold of each row [rows]: `FOLDS` of them, fewer where a class or the prompts are too few."""
    classes = np.bincount(joined.labels)
    return grouped_folds(
        joined.labels, joined.prompts, min(FOLDS, len(np.unique(joined.prompts)), classes[classes > 0].min())
    )


def _estimates(predictions: dict[str, np.ndarray], labels: np.ndarray, prompts: np.ndarray) -> dict[str, Estimate]:
    prior = np.tile(class_shares(labels), (len(labels), 1))
    return {name: judge(p, labels, prompts) for name, p in {PRIOR: prior, **predictions}.items()}


def _slices(predictions: dict[str, np.ndarray], joined: Joined, names: np.ndarray) -> dict[str, Slice]:
    known = names[names != None]  # noqa: E711 - compares each element
    slices = {}
    for name, rows in Counter(known.tolist()).most_common():
        chosen = names == name
        prompts = joined.prompts[chosen]
        estimates = {}
        if rows >= SMALLEST_SLICE:
            estimates = _estimates({n: p[chosen] for n, p in predictions.items()}, joined.labels[chosen], prompts)
        slices[name] = Slice(rows, len(np.unique(prompts)), estimates)
    return slices


def _prior_losses(labels: np.ndarray, settings: Settings) -> np.ndarray:
    return log_losses(np.tile(settings.prior, (len(labels), 1)), labels)
