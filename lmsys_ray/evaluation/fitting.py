"""Fits the blend: the weights and the temperature of least log loss, and what they give out of fold."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from lmsys_ray.blend import blend, normalised

_SHARPNESS = (0.2, 5.0)
"""Bounds of 1 / temperature."""
_SMALLEST = 1e-15


@dataclass(frozen=True)
class Mix:
    """What makes a blend of members: weights that sum to 1, by name, and a temperature."""

    weights: dict[str, float]
    temperature: float

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

    Solved by sequential quadratic programming (SLSQP) over the simplex of weights and 1 / temperature, with exact
    gradients. For a held temperature of 1 the problem is convex: a linear opinion pool.
    """
    if weights is not None and temperature is not None:
        return Mix(dict(weights), temperature)
    stacked = np.stack([members[name] for name in members])
    start = [1 / len(members) if weights is None else weights[name] for name in members]
    bounds = [(0.0, 1.0) if weights is None else (weight, weight) for weight in start]
    sharpness = _SHARPNESS if temperature is None else (1 / temperature, 1 / temperature)
    sum_to_one = LinearConstraint(np.append(np.ones(len(start)), 0), 1, 1)
    result = minimize(
        _loss_and_gradient,
        [*start, np.clip(1, *sharpness)],
        args=(stacked, labels),
        jac=True,
        method="SLSQP",
        bounds=[*bounds, sharpness],
        constraints=sum_to_one,
        options={"ftol": 1e-10, "maxiter": 200},
    )
    found = dict(zip(members, np.round(np.clip(result.x[:-1], 0, 1), 4).tolist(), strict=True))
    return Mix(
        normalised(found) if weights is None else dict(weights),
        round(float(1 / result.x[-1]), 4) if temperature is None else temperature,
    )


def _loss_and_gradient(x: np.ndarray, stacked: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the log loss of a mix and its gradient; `x` is weights [members] and 1 / temperature."""
    weights, sharpness = x[:-1], x[-1]
    rows = np.arange(len(labels))
    mixed = np.maximum(np.tensordot(weights, stacked, 1), _SMALLEST)
    logits = np.log(mixed)
    scaled = sharpness * logits
    log_total = np.logaddexp.reduce(scaled, axis=1)
    difference = np.exp(scaled - log_total[:, None])
    difference[rows, labels] -= 1
    by_weight = (sharpness * difference / mixed * stacked).sum(axis=2).mean(axis=1)
    by_sharpness = (difference * logits).sum(axis=1).mean()
    return float((log_total - scaled[rows, labels]).mean()), np.append(by_weight, by_sharpness)


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
