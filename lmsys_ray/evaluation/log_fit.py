"""Fits blends of log-probabilities to the lowest log loss: geometric and stacked, both convex in their coefficients."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.stacking import LEAST, Stacking, log_ratios
from lmsys_ray.evaluation.mix_search import LEAST_WEIGHT, TEMPERATURES
from lmsys_ray.evaluation.rounding import rounded, shares
from lmsys_ray.metrics import log_loss

RIDGE = 5.0
"""What keeps stacked coefficients near the geometric blend's: the negative log-likelihood has half of this times their
squared distance added; docs/lab/blends.md."""

_PRECISELY = {"maxiter": 1_000, "ftol": 1e-14, "gtol": 1e-9, "maxls": 40}

_Members = Mapping[str, np.ndarray]
_Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]


def fit_geometric(members: _Members, labels: np.ndarray) -> Blend:
    """Returns the geometric blend of `members`, probabilities [rows, 3] each, with the lowest log loss.

    Weight divided by temperature is a member's coefficient, at least 0, so that both are found at once. A member that
    gives 0 to a row's label rules that label out with any weight, so it is also tried without such members.
    """
    possible = [name for name, p in members.items() if p[np.arange(len(labels)), labels].all()]
    tried = [_geometric(members, list(members), labels)]
    if 0 < len(possible) < len(members):
        tried.append(_geometric(members, possible, labels))
    return min(tried, key=lambda blend: log_loss(blend.of(members), labels))


def _geometric(members: _Members, chosen: list[str], labels: np.ndarray) -> Blend:
    logs = np.stack([np.log(np.maximum(members[name], LEAST)) for name in chosen])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, by_logits = _log_loss(np.tensordot(x, logs, 1), labels)
        return value, np.tensordot(logs, by_logits, 2)

    found = _minimum(loss, np.full(len(chosen), 1 / len(chosen)), (0.0, None))
    found[found < LEAST_WEIGHT * found.max()] = 0
    found = found if found.any() else np.ones(len(chosen)) / TEMPERATURES[1]
    weights = dict.fromkeys(members, 0.0) | shares(dict(zip(chosen, found.tolist(), strict=True)))
    return Blend(weights, rounded(float(np.clip(1 / found.sum(), *TEMPERATURES))), "geometric")


def fit_stacking(members: _Members, labels: np.ndarray) -> Blend:
    """Returns the stacked blend of `members`, probabilities [rows, 3] each, with the lowest log loss and `RIDGE`."""
    near = fit_geometric(members, labels)
    centre = np.append(np.repeat([near.weights[name] / near.temperature for name in members], 2), 0.0)
    ratios = np.stack([ratio for p in members.values() for ratio in log_ratios(p)])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        half, tie = x[:-1:2] @ ratios[::2] / 2, x[1:-1:2] @ ratios[1::2] + x[-1]
        value, by_logits = _log_loss(np.stack([half, -half, tie], axis=1), labels)
        slopes = np.empty_like(x)
        slopes[:-1:2] = ratios[::2] @ (by_logits[:, 0] - by_logits[:, 1]) / 2
        slopes[1:-1:2] = ratios[1::2] @ by_logits[:, 2]
        slopes[-1] = by_logits[:, 2].sum()
        away = RIDGE * (x - centre) / len(labels)
        return value + float(away @ (x - centre)) / 2, slopes + away

    found = [rounded(value) for value in _minimum(loss, centre, (None, None)).tolist()]
    pairs = dict(zip(members, zip(found[:-1:2], found[1:-1:2], strict=True), strict=True))
    return Blend(dict.fromkeys(members, 1 / len(members)), 1.0, "stacked", Stacking(found[-1], pairs))


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the log loss of logits [rows, 3], and its slopes in them [rows, 3]."""
    logs = log_softmax(logits, axis=1)
    slopes = np.exp(logs)
    rows = np.arange(len(labels))
    slopes[rows, labels] -= 1
    return -float(logs[rows, labels].mean()), slopes / len(labels)


def _minimum(loss: _Loss, start: np.ndarray, bounds: tuple[float | None, float | None]) -> np.ndarray:
    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=[bounds] * len(start), options=_PRECISELY)
    return np.asarray(found.x)
