"""The strengths of highest likelihood, by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lmsys_ray.ensemble.leaderboard.design import Design
from lmsys_ray.ensemble.leaderboard.ties import TieModel

GRADIENT = 1e-10
"""The largest slope of the mean log-likelihood of a battle at which a fit is done, in each parameter."""

STEP = 1e-8
"""The largest step that a finished fit would still make, in logits; where there is no maximum, steps stay about 1."""

_MOST_STEPS = 100
_MOST_HALVINGS = 30
_ROUNDING = 1e-12
"""A drop of the mean log-likelihood that is rounding."""

Factor = tuple[np.ndarray, bool]
"""A Cholesky factor of the information."""


@dataclass(frozen=True)
class Likelihood:
    """The mean log-likelihood of a battle, given sums of outcomes [units, 3]."""

    design: Design
    ties: TieModel
    outcomes: np.ndarray

    def start(self) -> np.ndarray:
        """Returns the parameters [size] at which all models are equal."""
        found = np.zeros(self.design.size)
        if self.design.tie:
            found[-1] = self.ties.start(float(self.outcomes[:, 2].sum() / self.outcomes.sum()))
        return found

    def value_and_slope(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the value and the gradient [size]; the value is NaN outside the range of the tie parameter."""
        battles = self.outcomes.sum()
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            value, by_d, by_tie = self.ties.scores(*self.design.differences(parameters), self.outcomes)
        return float(value.sum() / battles), self.design.slope(by_d, by_tie) / battles

    def information(self, parameters: np.ndarray) -> np.ndarray:
        """Returns the negative second derivatives [size, size], of full rank where they tell all strengths apart.

        Only differences of strengths matter; what is added sees their sum alone, and keeps it as it is.
        """
        d, tie = self.design.differences(parameters)
        found = self.design.matrix(*self.ties.information(d, tie, self.outcomes)) / self.outcomes.sum()
        strengths, models = self.design.strengths, self.design.models
        found[strengths, strengths] += np.trace(found[strengths, strengths]) / models**2
        return found

    def factor(self, parameters: np.ndarray) -> Factor | None:
        """Returns the factor of the information; None where it has none."""
        found = self.information(parameters)
        try:
            return cho_factor(found) if np.isfinite(found).all() else None
        except np.linalg.LinAlgError:
            return None


def maximise(
    likelihood: Likelihood,
    start: np.ndarray,
    factor: Factor | None = None,
    gradient: float = GRADIENT,
    largest_step: float = STEP,
) -> np.ndarray | None:
    """Returns the parameters [size] of highest likelihood, the strengths with the sum of those at `start`.

    A factor is used again as long as each step with it makes the slope ten times flatter; the first may be given.
    Returns None where there is no maximum at finite parameters.
    """
    here = start
    value, slope = likelihood.value_and_slope(here)
    for _ in range(_MOST_STEPS):
        factor = factor or likelihood.factor(here)
        if factor is None or not np.isfinite(value):
            return None
        step = cho_solve(factor, slope)
        if np.abs(slope).max() <= gradient and np.abs(step).max() <= largest_step:
            return here
        found = _step(likelihood, here, value, step)
        if found is None:
            return None
        steepest = np.abs(slope).max()
        here, value, slope = found
        if np.abs(slope).max() > steepest / 10:
            factor = None
    return None


def _step(
    likelihood: Likelihood, here: np.ndarray, value: float, step: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """Returns where a step leads, halved until the likelihood does not drop, with value and slope there."""
    for halvings in range(_MOST_HALVINGS):
        there = here + step / 2**halvings
        found, slope = likelihood.value_and_slope(there)
        if found >= value - _ROUNDING:
            return there, found, slope
    return None
