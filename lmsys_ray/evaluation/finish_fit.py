"""Fits what comes after a blend: its temperature and its share of the class prior, together."""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from lmsys_ray.ensemble.blend import softmax
from lmsys_ray.ensemble.blend_methods import Blend, with_share
from lmsys_ray.evaluation.cross_fitting import Members
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.evaluation.rounding import rounded
from lmsys_ray.metrics import SMALLEST, log_losses

LARGEST_SHARE = 0.99
_LEAST_SHARE = 1e-6
"""A smaller fitted share counts as none."""

_STARTS = (0.01, 0.2)
_OPTIONS = {"maxiter": 300, "ftol": 1e-13, "gtol": 1e-8, "maxls": 40}

Prior = tuple[float, float, float]


def finished(blend: Blend, members: Members, labels: np.ndarray, prior: Prior) -> Blend:
    """Returns `blend` at the temperature and with the share of `prior` of the lowest log loss on these rows.

    The temperature is within `TEMPERATURES`, the share from 0 to `LARGEST_SHARE`.
    """
    with np.errstate(divide="ignore"):
        logits = np.log(replace(blend, temperature=1.0, prior_weight=0.0).of(members))
    bounds = [np.log(TEMPERATURES), (0.0, LARGEST_SHARE)]
    found = min(
        (
            minimize(
                loss_and_slope,
                [np.log(blend.temperature), share],
                (logits, labels, prior),
                "L-BFGS-B",
                jac=True,
                bounds=bounds,
                options=_OPTIONS,
            )
            for share in _STARTS
        ),
        key=lambda result: float(result.fun),
    )
    temperature, share = float(np.exp(found.x[0])), float(found.x[1])
    return replace(
        blend,
        temperature=rounded(float(np.clip(temperature, *TEMPERATURES))),
        prior_weight=rounded(share) if share >= _LEAST_SHARE else 0.0,
        prior=prior,
    )


def loss_and_slope(x: np.ndarray, logits: np.ndarray, labels: np.ndarray, prior: Prior) -> tuple[float, np.ndarray]:
    """Returns the log loss and its gradient in `x`, log temperature and share; `logits` [rows, 3] may be -inf.

    A row at the floor of the log loss has no slope.
    """
    temperature, share = float(np.exp(x[0])), float(x[1])
    p = softmax(logits, temperature)
    mixed = with_share(p, share, prior)
    rows = np.arange(len(labels))
    inverse = np.where(mixed[rows, labels] > SMALLEST, 1 / np.maximum(mixed[rows, labels], SMALLEST), 0)
    finite = np.where(p > 0, logits, 0)
    away = finite[rows, labels] - (p * finite).sum(axis=1)
    by_temperature = (1 - share) * float((inverse * p[rows, labels] * away).mean()) / temperature
    by_share = float((inverse * (p[rows, labels] - np.asarray(prior)[labels] / sum(prior))).mean())
    return float(log_losses(mixed, labels).mean()), np.array([by_temperature, by_share])
