"""Blends with all their parameters: linear, geometric or stacked, at a temperature, with a share of the class prior."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmsys_ray.ensemble.blend import blend, softmax
from lmsys_ray.ensemble.geometric import geometric
from lmsys_ray.ensemble.stacking import Stacking

Method = Literal["linear", "geometric", "stacked"]


@dataclass(frozen=True)
class Blend:
    """How the probabilities of members become those of the ensemble."""

    weights: Mapping[str, float]
    """Of the members that take part, summing to 1; a stacked blend has coefficients in their place."""
    temperature: float = 1.0
    method: Method = "linear"
    stacking: Stacking | None = None
    """The coefficients of a stacked blend, for exactly the members in `weights`."""
    prior_weight: float = 0.0
    """The share of `prior` in each row, from 0 to below 1."""
    prior: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)

    def of(self, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the blend [rows, 3] of `members`, probabilities [rows, 3] each; others than its own are left out."""
        chosen = {name: members[name] for name in self.weights}
        if self.stacking is not None:
            blended = softmax(self.stacking.logits(chosen), self.temperature)
        elif self.method == "geometric":
            blended = geometric(chosen, self.weights, self.temperature)
        else:
            blended = blend(chosen, self.weights, self.temperature)
        return with_share(blended, self.prior_weight, self.prior)


def with_share(blended: np.ndarray, share: float, prior: tuple[float, float, float]) -> np.ndarray:
    """Returns probabilities [rows, 3] with a `share` of `prior`, whose sum is about 1, mixed into each row."""
    if share == 0:
        return blended
    return (1 - share) * blended + share * np.asarray(prior) / sum(prior)
