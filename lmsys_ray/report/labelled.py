"""The log loss of members and blend on a run's labelled rows, whole and in slices, and what a fit would gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.evaluation.blend_fit import Mix, fit_mix
from lmsys_ray.evaluation.cross_fitting import cross_fitted, folds_of, unfitted_because
from lmsys_ray.evaluation.evaluate import PRIOR, SMALLEST_SLICE
from lmsys_ray.metrics import BINS, Estimate, brier_scores, calibration_gaps, estimate_means, hits, log_losses
from lmsys_ray.report.counts import Reliability
from lmsys_ray.report.prompt_groups import HASHES, GroupSums, part, ratios

MOST_SLICES = 40
"""Distinct values of a property that are told apart, the first of the input; the others are one slice."""

SAMPLE = 20_000
"""Labelled rows, about, to which a blend is fitted."""

FEWEST = 200
"""Labelled rows below which no blend is fitted: it would say little."""


@dataclass(frozen=True)
class Judged:
    """What the labels say of one member, blend or order."""

    log_loss: Estimate
    accuracy: float
    brier_score: float
    calibration_error: float


@dataclass(frozen=True)
class SliceLosses:
    """Log losses in one slice of the rows; none where they are too few."""

    name: str
    rows: int
    losses: Mapping[str, Estimate]


@dataclass(frozen=True)
class Gain:
    """What fitted weights and temperature would gain."""

    mix: Mix
    rows: int
    difference: Estimate
    """Log loss out of fold less that of the blend in use; below 0 the fit is better."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference lies below 0."""
        return bool(self.difference.intervals()[1, 0] < 0)


class _Slices:
    """The slices of one property of rows."""

    def __init__(self, columns: int) -> None:
        self.places: dict[str | None, int] = {}
        self.sums = GroupSums(MOST_SLICES + 1, columns)

    def add(self, values: Sequence[str | None], hashes: np.ndarray, terms: np.ndarray) -> None:
        for value in values:
            if value not in self.places and len(self.places) < MOST_SLICES:
                self.places[value] = len(self.places)
        self.sums.add(np.array([self.places.get(value, MOST_SLICES) for value in values]), hashes, terms)


class Labelled:
    """Collects the labelled rows of a run; `names` are those of the predictions, `kinds` of the properties of rows.

    Of the probabilities themselves only a sample of whole prompts is kept: about `SAMPLE` of `rows` rows.
    """

    def __init__(self, names: Sequence[str], kinds: Sequence[str], rows: int) -> None:
        self.names = list(names)
        self.rows = 0
        self.reliability = {name: Reliability() for name in names}
        self._all = GroupSums(1, 3 * len(names) + len(CLASSES))
        self._gaps = np.zeros((len(names), BINS))
        self._slices = {kind: _Slices(len(names) + len(CLASSES)) for kind in kinds}
        self._below = HASHES * min(1.0, SAMPLE / max(rows, 1))
        self._sample: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self,
        predictions: Mapping[str, np.ndarray],
        labels: np.ndarray,
        hashes: np.ndarray,
        properties: Mapping[str, Sequence[str | None]],
    ) -> None:
        """Adds rows: probabilities [rows, 3] by name, classes and hashes of prompts [rows], values of properties."""
        stacked = np.stack([predictions[name] for name in self.names])
        losses = log_losses(stacked, labels).T
        classes = np.eye(len(CLASSES))[labels]
        right = np.column_stack([hits(each, labels) for each in stacked])
        errors = np.column_stack([brier_scores(each, labels) for each in stacked])
        self._all.add(np.zeros(len(labels), np.int64), hashes, np.column_stack([losses, right, errors, classes]))
        for kind, values in properties.items():
            self._slices[kind].add(values, hashes, np.column_stack([losses, classes]))
        for place, name in enumerate(self.names):
            self._gaps[place] += calibration_gaps(stacked[place], labels).sum(axis=0)
            self.reliability[name].add(stacked[place], labels)
        kept = hashes < self._below
        if kept.any():
            self._sample.append((stacked[:, kept], labels[kept], hashes[kept]))
        self.rows += len(labels)

    def judged(self) -> dict[str, Judged]:
        """Returns what the labels say of each prediction, the shares of the classes alone first."""
        many = len(self.names)
        sums = self._all.of(0)
        losses = _with_prior(sums[:, :many], sums[:, -len(CLASSES) :])
        means = sums.sum(axis=0) / self.rows
        shares = means[-len(CLASSES) :]
        flat = Judged(part(losses, [many]), float(shares.max()), float(1 - (shares**2).sum()), 0.0)
        found = {PRIOR: flat}
        for place, name in enumerate(self.names):
            gap = float(np.abs(self._gaps[place]).sum() / self.rows)
            right, error = means[many + place], means[2 * many + place]
            found[name] = Judged(part(losses, [place]), float(right), float(error), gap)
        return found

    def slices(self, names: Sequence[str], most: int = 15) -> dict[str, list[SliceLosses]]:
        """Returns the log losses of some predictions by property and slice, the `most` largest slices of each."""
        return {kind: self._of_kind(kind, names)[:most] for kind in self._slices}

    def _of_kind(self, kind: str, names: Sequence[str]) -> list[SliceLosses]:
        slices, many, found = self._slices[kind], len(self.names), []
        rows = slices.sums.totals()[:, many:].sum(axis=1).astype(int)
        for value, place in [*slices.places.items(), ("all others", MOST_SLICES)]:
            if value is None or not rows[place]:
                continue
            losses = {}
            if rows[place] >= SMALLEST_SLICE:
                sums = slices.sums.of(place)
                estimate = _with_prior(sums[:, :many], sums[:, many:])
                losses = {name: part(estimate, [[*self.names, PRIOR].index(name)]) for name in names}
            found.append(SliceLosses(value, int(rows[place]), losses))
        return sorted(found, key=lambda each: -each.rows)

    def gain(self, in_use: Blend, name: str) -> Gain | None:
        """Returns what a fit would gain over the blend `in_use`, the prediction `name`; None where rows are too few."""
        stacked = np.concatenate([np.empty((len(self.names), 0, 3)), *(each[0] for each in self._sample)], axis=1)
        labels, hashes = (
            np.concatenate([np.empty(0, np.int64), *(each[place] for each in self._sample)]) for place in (1, 2)
        )
        if len(labels) < FEWEST or unfitted_because(labels) or len(np.unique(hashes)) < 10:
            return None
        of = dict(zip(self.names, stacked, strict=True))
        members = {member: of[member] for member in in_use.weights}
        blended = cross_fitted(members, labels, folds_of(labels, hashes), fit_mix)
        differences = log_losses(blended, labels) - log_losses(of[name], labels)
        return Gain(fit_mix(members, labels), len(labels), estimate_means(differences[:, None], hashes))


def _with_prior(losses: np.ndarray, classes: np.ndarray) -> Estimate:
    """Estimates log losses, and behind them that of the shares of the `classes`, from sums by group."""
    totals = classes.sum(axis=0)
    with np.errstate(divide="ignore"):
        costs = np.where(totals > 0, -np.log(totals / totals.sum()), 0)
    return ratios(np.column_stack([losses, classes @ costs]), classes.sum(axis=1))
