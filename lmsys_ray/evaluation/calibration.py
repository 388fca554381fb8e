"""Fits links, a blend, its temperature and its share of the class prior to labels, and judges each kind out of fold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from lmsys_ray.ensemble.blend_methods import Blend, Method
from lmsys_ray.ensemble.links import Link, LinkName, agreement
from lmsys_ray.errors import RunError
from lmsys_ray.evaluation.blend_fit import fit_blend
from lmsys_ray.evaluation.cross_fitting import Members, folds_of, unfitted_because
from lmsys_ray.evaluation.evaluate import PRIOR
from lmsys_ray.evaluation.finish_fit import Prior, finished
from lmsys_ray.evaluation.labelled_scores import LabelledScores
from lmsys_ray.evaluation.link_choice import LinkChoice, choose_links, fitted
from lmsys_ray.metrics import METRICS, Estimate, class_shares, estimate_means, estimate_metrics
from lmsys_ray.scoring.settings import Settings

METHODS: tuple[Method, ...] = get_args(Method)
"""The simplest first."""

BLENDS: dict[Method, str] = {method: f"{method} blend" for method in METHODS}
"""Names of the methods beside members, which have no space in theirs."""

_LOG_LOSS = METRICS.index("log_loss")


@dataclass(frozen=True)
class Calibration:
    """Everything between the scores of members and a submission."""

    links: Mapping[str, Link]
    """Of the members that score each response by itself."""
    blend: Blend

    def of(self, members: Members) -> np.ndarray:
        """Returns the blend [rows, 3] of probabilities [rows, 3] or, where a member has a link, differences [rows]."""
        return self.blend.of(linked(members, self.links))


@dataclass(frozen=True)
class Calibrated:
    """Calibrations of every kind, and what they gain; all estimates are of the same rows."""

    rows: int
    prompts: int
    before: dict[str, Estimate]
    """As settings are, by member, `PRIOR` and `BLENDS`; a blend not in use has the weights of the one that is."""
    after: dict[str, Estimate]
    """Out of fold, by `BLENDS` and member with a new link."""
    fits: dict[Method, Calibration]
    """Fitted on all rows."""
    in_use: Method
    chosen: Method
    links: dict[str, LinkChoice]
    """Of the members with two scores: the link in use, and the one that was fitted."""
    against_scores: dict[str, bool]
    """The members of whom higher scores are preferred less often, and whether the interval of that excludes 0."""


def linked(members: Members, links: Mapping[str, Link]) -> dict[str, np.ndarray]:
    """Returns probabilities [rows, 3] of all members, by their links where they have one."""
    return {name: links[name].probabilities(known) if name in links else known for name, known in members.items()}


def fit_links(members: Members, labels: np.ndarray, names: Mapping[str, LinkName]) -> dict[str, Link]:
    """Returns the links, of these names, of the members that have differences [rows]."""
    return {member: fitted(name, members[member], labels) for member, name in names.items()}


def fit_calibrations(
    members: Members, labels: np.ndarray, names: Mapping[str, LinkName], prior: Prior
) -> dict[Method, Calibration]:
    """Returns for each kind of blend the calibration of the lowest log loss: links, then the blend, then the rest.

    `members` are probabilities [rows, 3] or, for those in `names`, differences of scores [rows].
    """
    links = fit_links(members, labels, names)
    probabilities = linked(members, links)
    return {
        method: Calibration(links, finished(fit_blend(method, probabilities, labels), probabilities, labels, prior))
        for method in METHODS
    }


def calibrate(joined: LabelledScores, settings: Settings) -> Calibrated:
    """Fits each kind of blend to the joined rows, and chooses links and blend by log loss out of fold.

    Raises `RunError` where the labels are too few to be divided into folds.
    """
    if reason := unfitted_because(joined.labels):
        raise RunError(f"nothing can be calibrated: {reason}; label more rows")
    labels, prompts = joined.labels, joined.prompts
    folds = folds_of(labels, prompts)
    in_use = {member: _link_name(settings, member) for member in joined.differences}
    links = choose_links(joined.differences, labels, prompts, folds, in_use)
    names = {member: choice.chosen for member, choice in links.items()}
    members = {**joined.members, **joined.differences}
    predicted = {name: np.empty((len(labels), 3)) for name in BLENDS.values()}
    for fold in np.unique(folds):
        held_out = folds == fold
        rest = {name: known[~held_out] for name, known in members.items()}
        part = {name: known[held_out] for name, known in members.items()}
        fits = fit_calibrations(rest, labels[~held_out], names, settings.prior)
        for method, name in BLENDS.items():
            predicted[name][held_out] = fits[method].of(part)
    after = {member: choice.estimates[choice.chosen] for member, choice in links.items()}
    after |= {name: estimate_metrics(p, labels, prompts) for name, p in predicted.items()}
    return Calibrated(
        rows=len(labels),
        prompts=len(np.unique(prompts)),
        before={name: estimate_metrics(p, labels, prompts) for name, p in _before(joined, settings).items()},
        after=after,
        fits=fit_calibrations(members, labels, names, settings.prior),
        in_use=settings.blend,
        chosen=choose({method: after[name] for method, name in BLENDS.items()}),
        links=links,
        against_scores=_against_scores(joined),
    )


def choose(estimates: Mapping[Method, Estimate]) -> Method:
    """Returns the simplest method whose log loss is not clearly above the lowest: its interval does not exclude 0."""
    best = min(estimates, key=lambda method: float(estimates[method].values[_LOG_LOSS]))
    for method in METHODS:
        if method == best or (estimates[method] - estimates[best]).intervals()[0, _LOG_LOSS] <= 0:
            return method
    return best


def _link_name(settings: Settings, member: str) -> LinkName:
    asked = settings.members[member].link_settings()
    assert asked is not None, "a member with two scores has a link"
    return asked.name


def _before(joined: LabelledScores, settings: Settings) -> dict[str, np.ndarray]:
    """Returns what is predicted without any fit [rows, 3]."""
    in_use = settings.blending()
    blends: dict[Method, Blend] = {
        method: replace(in_use, method=method, stacking=None) for method in METHODS if method != "stacked"
    }
    blends[in_use.method] = in_use
    prior = np.tile(class_shares(joined.labels), (len(joined.labels), 1))
    before = {BLENDS[method]: blend.of(joined.members) for method, blend in blends.items()}
    return {PRIOR: prior, **joined.members, **before}


def _against_scores(joined: LabelledScores) -> dict[str, bool]:
    found = {}
    for member, differences in joined.differences.items():
        if agreement(differences, joined.labels) <= 0:
            terms = differences * np.take([1.0, -1.0, 0.0], joined.labels)
            found[member] = bool(estimate_means(terms[:, None], joined.prompts).intervals()[1, 0] < 0)
    return found
