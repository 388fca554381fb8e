"""From battles to strengths with intervals, in logits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.comparable import ALONE, CONFOUNDED, UNSETTLED, set_apart, wins
from lmsys_ray.ensemble.leaderboard.design import Design
from lmsys_ray.ensemble.leaderboard.fit import Likelihood, maximise
from lmsys_ray.ensemble.leaderboard.intervals import Sample, bootstrap, sandwich
from lmsys_ray.ensemble.leaderboard.settings import TieName
from lmsys_ray.ensemble.leaderboard.ties import TIES
from lmsys_ray.metrics import LEVEL


@dataclass(frozen=True)
class Strengths:
    """Strengths in logits, their mean 0, with intervals of `LEVEL`. All arrays are NaN where there is no value."""

    values: np.ndarray
    """[models]"""
    intervals: np.ndarray
    """By the sandwich covariance [2, models]; NaN for a model of one battle too, which fits any."""
    bootstrapped: np.ndarray
    """By the bootstrap [2, models]; NaN where too few resamples have finite strengths."""
    reasons: dict[int, str]
    """Why models have no strength."""
    battles: int
    """Battles that the strengths were estimated from."""
    resamples: int = 0
    """Resamples of the bootstrap that have finite strengths."""
    tie: np.ndarray = field(default_factory=lambda: np.full(3, np.nan))
    """The tie parameter with its interval [3]."""
    coefficients: np.ndarray = field(default_factory=lambda: np.empty((3, 0)))
    """The coefficients of style with their intervals [3, covariates], each for `spreads` of its difference."""
    spreads: np.ndarray = field(default_factory=lambda: np.empty(0))
    """The root mean square of each difference of style [covariates]."""


def estimate(battles: Battles, ties: TieName, rounds: int) -> Strengths:
    """Returns the strengths of the models in `battles`, of which there is one at least.

    Models that cannot be compared with the largest group of models that can have none, and their battles do not count.
    """
    models = len(battles.models)
    apart = set_apart(_wins(battles))
    kept = np.setdiff1d(np.arange(models), list(apart))
    if len(kept) < 2:
        return _none(models, {**apart, int(kept[0]): ALONE})
    place = np.full(models, -1)
    place[kept] = np.arange(len(kept))
    first, second = place[battles.first], place[battles.second]
    inside = (first >= 0) & (second >= 0)
    first, second, outcomes = first[inside], second[inside], np.asfortranarray(battles.outcomes[inside])
    spreads, covariates = _scaled(battles.style, inside)
    tied = outcomes[:, 2].sum() > 0
    model = TIES[ties if tied else "half"]
    design = Design(first, second, len(kept), covariates, tie=model.parameter is not None)
    sample = Sample(design, model, outcomes)
    likelihood = sample.likelihood()
    start = likelihood.start()
    if covariates is not None and not _full_rank(likelihood, start, len(outcomes)):
        return _none(models, {**apart, **dict.fromkeys(kept.tolist(), CONFOUNDED)})
    found = maximise(likelihood, start)
    if found is None or not _full_rank(likelihood, found, len(outcomes)):
        return _none(models, {**apart, **dict.fromkeys(kept.tolist(), UNSETTLED)})
    resampled = bootstrap(sample, found, rounds)
    return _strengths(sample, found, resampled, rounds, kept, apart, models, spreads)


def _strengths(
    sample: Sample,
    found: np.ndarray,
    resampled: np.ndarray,
    rounds: int,
    kept: np.ndarray,
    apart: dict[int, str],
    models: int,
    spreads: np.ndarray,
) -> Strengths:
    design = sample.design
    reach = ndtri((1 + LEVEL) / 2) * np.sqrt(np.diag(sandwich(sample, found)))
    estimates = np.stack([found, found - reach, found + reach])
    once = np.bincount(np.concatenate(design.pairs), _pair_counts(design), design.models) < 2
    estimates[1:, design.strengths][:, once] = np.nan
    values, bootstrapped = np.full((3, models), np.nan), np.full((2, models), np.nan)
    values[:, kept] = estimates[:, design.strengths]
    if rounds and len(resampled) >= LEVEL * rounds:
        ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        bootstrapped[:, kept] = np.quantile(resampled[:, design.strengths], ends, axis=0)
    coefficients = np.full((3, len(spreads)), np.nan)
    coefficients[:, spreads > 0] = estimates[:, design.coefficients]
    tie = np.array([sample.ties.shown(value) for value in estimates[:, -1]]) if design.tie else np.full(3, np.nan)
    return Strengths(
        values[0], values[1:], bootstrapped, apart, len(sample.outcomes), len(resampled), tie, coefficients, spreads
    )


def _pair_counts(design: Design) -> np.ndarray:
    """Returns the battles of both models of each pair [2 pairs]."""
    return np.tile(np.bincount(design.pair_of, minlength=len(design.pairs[0])), 2)


def _wins(battles: Battles) -> csr_array:
    """Returns who won against whom, of all battles."""
    design = Design(battles.first, battles.second, len(battles.models))
    return wins(*design.pairs, Sample(design, TIES["half"], battles.outcomes).pair_outcomes(), design.models)


def _scaled(style: np.ndarray | None, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the root mean square of each difference of style, and those that vary in units of it.

    They are not centred, so that exchanging A and B changes nothing.
    """
    if style is None:
        return np.empty(0), None
    chosen = style[inside]
    spreads = np.sqrt(np.mean(chosen**2, axis=0))
    varying = spreads > 0
    return spreads, chosen[:, varying] / spreads[varying] if varying.any() else None


def _full_rank(likelihood: Likelihood, parameters: np.ndarray, battles: int) -> bool:
    """Returns whether the information has full rank, by the rounding of sums over so many battles."""
    information = likelihood.information(parameters)
    units = np.sqrt(np.diag(information))
    values = np.linalg.eigvalsh(information / np.outer(units, units))
    return bool(values[0] > np.finfo(np.float64).eps * max(battles, len(values)) * values[-1])


def _none(models: int, reasons: dict[int, str]) -> Strengths:
    nothing = np.full((2, models), np.nan)
    return Strengths(nothing[0], nothing, nothing, dict(sorted(reasons.items())), 0)
