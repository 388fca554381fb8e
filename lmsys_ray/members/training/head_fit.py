"""Fits a linear head to features, by logistic regression whose penalty is chosen across prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold

from lmsys_ray import CLASSES
from lmsys_ray.errors import UsageError

_PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Factors of half the squared weights, added to the mean log loss; tried from the strongest on."""

_FOLDS = 4


@dataclass(frozen=True)
class FittedHead:
    """A linear head without bias, as transformers' heads are."""

    weight: np.ndarray
    """float32 [3, hidden]."""
    penalty: float
    log_loss: float
    """Of rows held out from the fit, whole groups at a time."""


def fit_head(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> FittedHead:
    """Fits float32 features [rows, hidden] to `labels` [rows]; the penalty is the best across folds of `groups` [rows].

    Each feature is divided by its root mean square, so that the penalty treats all alike. Raises `UsageError` where all
    rows are of one group.
    """
    if (found := len(np.unique(groups))) < 2:
        raise UsageError(
            f"head_start: the rows have {found} prompt, but the penalty is chosen across 2 or more; set head_start=zero"
        )
    scale = np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=0)).astype(np.float32) + np.float32(1e-12)
    scaled = features / scale
    losses = np.zeros(len(_PENALTIES))
    for training, held_out in GroupKFold(min(_FOLDS, found)).split(scaled, labels, groups):
        for place, weight in enumerate(_path(scaled[training], labels[training], len(_PENALTIES))):
            losses[place] -= log_softmax(scaled[held_out] @ weight.T, axis=1)[
                np.arange(len(held_out)), labels[held_out]
            ].sum()
    best = int(losses.argmin())
    weight = _path(scaled, labels, best + 1)[-1]
    return FittedHead((weight / scale).astype(np.float32), _PENALTIES[best], float(losses[best] / len(labels)))


def _path(features: np.ndarray, labels: np.ndarray, penalties: int) -> list[np.ndarray]:
    """Returns the weights [3, hidden] for each of the first penalties; each fit starts from the one before."""
    targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
    shape = len(CLASSES), features.shape[1]

    def loss(flat: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        weight = flat.reshape(shape)
        logs = log_softmax(features @ weight.T.astype(np.float32), axis=1)
        gradient = (np.exp(logs) - targets).T @ features / len(labels) + penalty * weight
        return float(-(logs * targets).sum() / len(labels) + penalty / 2 * (weight**2).sum()), gradient.ravel().astype(
            np.float64
        )

    weights = [np.zeros(shape)]
    for penalty in _PENALTIES[:penalties]:
        found = minimize(
            loss, weights[-1].ravel(), args=(penalty,), jac=True, method="L-BFGS-B", options={"maxiter": 100}
        )
        weights.append(found.x.reshape(shape))
    return weights[1:]
