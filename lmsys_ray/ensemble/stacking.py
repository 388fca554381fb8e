"""Stacking: a multinomial logistic regression on members' log-probabilities (Wolpert 1992)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 1e-15
"""What a smaller probability counts as."""


@dataclass(frozen=True)
class Stacking:
    """Coefficients that treat A and B alike: exchanging them exchanges P(a) and P(b).

    With sums over members, logit a - logit b is the sum of preference * log(P(a) / P(b)), and the logit of a tie less
    the mean of the other two is `tie` plus the sum of tie * log(P(tie) / sqrt(P(a) P(b))). Where both coefficients of
    each member are its weight and `tie` is 0, this is the geometric mean.
    """

    tie: float
    members: Mapping[str, tuple[float, float]]
    """For each member the coefficients `preference` and `tie`."""

    def logits(self, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns logits [rows, 3] of the members' probabilities, [rows, 3] each."""
        rows = len(next(iter(members.values())))
        half, tie = np.zeros(rows), np.full(rows, self.tie)
        for name, (by_preference, by_tie) in self.members.items():
            preference, ties = log_ratios(members[name])
            half += by_preference / 2 * preference
            tie += by_tie * ties
        return np.stack([half, -half, tie], axis=1)


def log_ratios(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log(P(a) / P(b)) and log(P(tie) / sqrt(P(a) P(b))), [rows] each, of probabilities of at least `LEAST`."""
    a, b, tie = np.log(np.maximum(probabilities, LEAST)).T
    return a - b, tie - (a + b) / 2
