"""How sure strengths are: the sandwich covariance, and the bootstrap over battles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve

from lmsys_ray.ensemble.leaderboard.comparable import all_comparable, wins
from lmsys_ray.ensemble.leaderboard.design import Design
from lmsys_ray.ensemble.leaderboard.fit import Likelihood, maximise
from lmsys_ray.ensemble.leaderboard.ties import TieModel

SEED = 0

_STEP = 1e-6
"""The largest step, in logits, that the fit to a resample would still make: far below the width of any interval."""


@dataclass(frozen=True)
class Sample:
    """Battles whose models can all be compared: their design, and outcomes [battles, 3]."""

    design: Design
    ties: TieModel
    outcomes: np.ndarray

    def pair_outcomes(self, times: np.ndarray | None = None) -> np.ndarray:
        """Returns the sums of outcomes over each pair [pairs, 3], each battle counted so many `times` [battles]."""
        columns = self.outcomes.T if times is None else self.outcomes.T * times
        return np.stack([self.design.pair_sums(column) for column in columns], axis=1)

    def likelihood(self, times: np.ndarray | None = None) -> Likelihood:
        """Returns the likelihood: of pairs, for which the sums of outcomes suffice, or of battles with covariates."""
        if self.design.covariates is None:
            return Likelihood(self.design.of_pairs(), self.ties, self.pair_outcomes(times))
        outcomes = self.outcomes if times is None else (self.outcomes.T * times).T
        return Likelihood(self.design, self.ties, outcomes)


def sandwich(sample: Sample, parameters: np.ndarray) -> np.ndarray:
    """Returns the covariance of the parameters [size, size], strengths about their mean.

    It is robust (Huber 1967, White 1982): the inverse information on both sides of the sum of s s', s being a battle's
    score, so that it holds for probabilities as outcomes, which vary less than wins and losses.
    """
    design, battles = sample.design, len(sample.outcomes)
    factor = sample.likelihood().factor(parameters)
    assert factor is not None  # or there were no parameters
    _, by_d, by_tie = sample.ties.scores(*design.differences(parameters), sample.outcomes)
    scores = design.matrix(by_d**2, by_d * by_tie, by_tie**2)
    return cho_solve(factor, cho_solve(factor, scores).T) / battles**2


def bootstrap(sample: Sample, parameters: np.ndarray, rounds: int) -> np.ndarray:
    """Returns the parameters of resamples of the battles, with replacement [resamples, size].

    The same battles give the same resamples. Those in which some model has no finite strength are left out.
    """
    battles = len(sample.outcomes)
    generator = np.random.default_rng(SEED)
    factor = sample.likelihood().factor(parameters)
    found = []
    for _ in range(rounds):
        times = np.bincount(generator.integers(battles, size=battles, dtype=np.int32), minlength=battles)
        if all_comparable(wins(*sample.design.pairs, sample.pair_outcomes(times), sample.design.models)):
            resampled = maximise(sample.likelihood(times), parameters, factor, np.inf, _STEP)
            if resampled is not None:
                found.append(resampled)
    return np.array(found).reshape(-1, sample.design.size)
