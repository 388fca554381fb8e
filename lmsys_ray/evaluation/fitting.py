"""Fits the blend: the weights and the temperature of least log loss, and what they give out of fold."""

from dataclasses import dataclass

import numpy as np

from lmsys_ray.blend import blend, normalised
from lmsys_ray.evaluation.mix_search import Search

_DIGITS = 6
"""Significant digits of what is fitted: a small weight, rounded to 0, may leave a row's class impossible."""


@dataclass(frozen=True)
class Mix:
    """What makes a blend of members: weights that sum to 1, by name, and a temperature."""

    weights: dict[str, float]
    temperature: float
    settled: bool = True
    """False where the solver stopped before a minimum."""

    def of(self, members: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the blend [rows, 3] of the members' probabilities, as the scorer makes it."""
        return blend(members, self.weights, self.temperature)


def fit_mix(
    members: dict[str, np.ndarray],
    labels: np.ndarray,
    weights: dict[str, float] | None = None,
    temperature: float | None = None,
) -> Mix:
    """Returns the mix of least log loss on these rows; `weights` or `temperature`, where given, are held.

    A fitted temperature stays within `mix_search.TEMPERATURES`; a member that does no good has a weight of exactly 0.
    """
    if weights is not None and temperature is not None:
        return Mix(dict(weights), temperature)
    stacked = np.stack([members[name] for name in members])
    held = None if weights is None else np.array([weights[name] for name in members])
    found = Search(stacked, labels, held, temperature).least()
    fitted = {name: rounded(float(weight)) for name, weight in zip(members, found.weights, strict=True)}
    return Mix(
        normalised(fitted) if weights is None else dict(weights),
        rounded(found.temperature) if temperature is None else temperature,
        found.settled,
    )


def rounded(value: float) -> float:
    """Returns a weight or temperature with as many significant digits as are kept."""
    return float(f"{value:.{_DIGITS}g}")


def cross_fitted(
    members: dict[str, np.ndarray],
    labels: np.ndarray,
    folds: np.ndarray,
    weights: dict[str, float] | None = None,
    temperature: float | None = None,
) -> np.ndarray:
    """Returns blends [rows, 3], those of each fold made by the mix that was fitted on the other folds."""
    blended = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        held_out = folds == fold
        rest = {name: probabilities[~held_out] for name, probabilities in members.items()}
        mix = fit_mix(rest, labels[~held_out], weights, temperature)
        blended[held_out] = mix.of({name: probabilities[held_out] for name, probabilities in members.items()})
    return blended
