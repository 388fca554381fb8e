"""Fits a blend to the lowest log loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmsys_ray.ensemble.blend import blend
from lmsys_ray.ensemble.blend_methods import Blend, Method
from lmsys_ray.evaluation.log_fit import fit_geometric, fit_stacking
from lmsys_ray.evaluation.mix_search import Search
from lmsys_ray.evaluation.rounding import rounded, shares


@dataclass(frozen=True)
class Mix:
    """The parameters of a blend: weights by member, which sum to 1, and a temperature."""

    weights: dict[str, float]
    temperature: float
    settled: bool = True
    """False if the solver stopped before a minimum."""

    def of(self, members: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the blend [rows, 3] of the members' probabilities, as in scoring."""
        return blend(members, self.weights, self.temperature)


def fit_mix(
    members: Mapping[str, np.ndarray],
    labels: np.ndarray,
    weights: dict[str, float] | None = None,
    temperature: float | None = None,
) -> Mix:
    """Returns the mix with the lowest log loss on these rows; `weights` or `temperature`, if given, are held fixed.

    A fitted temperature is within `mix_search.TEMPERATURES`; a member that does not help has a weight of exactly 0.
    """
    if weights is not None and temperature is not None:
        return Mix(dict(weights), temperature)
    stacked = np.stack([members[name] for name in members])
    held = None if weights is None else np.array([weights[name] for name in members])
    found = Search(stacked, labels, held, temperature).minimum()
    return Mix(
        shares(dict(zip(members, found.weights.tolist(), strict=True))) if weights is None else dict(weights),
        rounded(found.temperature) if temperature is None else temperature,
        found.settled,
    )


def fit_blend(method: Method, members: Mapping[str, np.ndarray], labels: np.ndarray) -> Blend:
    """Returns the blend of `method` with the lowest log loss on these rows, without a share of the class prior."""
    if method == "geometric":
        return fit_geometric(members, labels)
    if method == "stacked":
        return fit_stacking(members, labels)
    mix = fit_mix(members, labels)
    return Blend(mix.weights, mix.temperature)
