"""Fits the linear model of the winner."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from lmsys_ray.members.lightgbm.linear import CLIP, LinearModel

_DIGITS = 6


def fit_linear(differences: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float) -> LinearModel:
    """Fits `differences` [rows, columns] to the rows of `labels` int [rows] that are a or b, with `weights` [rows].

    Ridge logistic regression without intercept: `penalty` times half the squared weights, of differences divided by
    their root mean square, is added to the mean log loss. Without rows all weights are 0.
    """
    decided = labels < 2
    matrix, side = differences[decided], np.where(labels[decided] == 0, 1.0, -1.0)
    columns = matrix.shape[1]
    if not len(matrix):
        return LinearModel(scales=[1.0] * columns, weights=[0.0] * columns)
    scales = np.sqrt(np.mean(np.square(matrix), axis=0)) + 1e-6
    signed = np.clip(matrix / scales, -CLIP, CLIP) * side[:, None]
    share = weights[decided] / weights[decided].sum()

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signed @ vector
        gradient = -(share / (1 + np.exp(margins))) @ signed + penalty * vector
        return float(share @ np.logaddexp(0, -margins) + penalty / 2 * vector @ vector), gradient

    found = minimize(loss, np.zeros(columns), jac=True, method="L-BFGS-B").x
    return LinearModel(scales=scales.round(_DIGITS).tolist(), weights=found.round(_DIGITS).tolist())
