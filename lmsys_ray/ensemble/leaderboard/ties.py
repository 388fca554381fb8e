"""Likelihoods of a battle's outcome, by how they see ties.

With d the strength of A less that of B, in logits:

- half: P(a) = 1 / (1 + exp(-d)), a tie being half a win for each (Bradley and Terry 1952, as in Chatbot Arena)
- Davidson (1970): P(a) : P(b) : P(tie) = exp(d / 2) : exp(-d / 2) : nu
- Rao and Kupper (1967): P(a) = 1 / (1 + exp(theta - d)), P(b) = 1 / (1 + exp(theta + d)), P(tie) = the rest

All are concave in the strengths and log nu or theta (Burridge 1981).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lmsys_ray.ensemble.leaderboard.settings import TieName

Scores = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The log-likelihood, and its derivatives by d and by the tie parameter [units] each."""

Information = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The negative second derivatives: by d twice, by d and the tie parameter, by the tie parameter twice [units] each."""


class TieModel(NamedTuple):
    """A likelihood of outcomes [units, 3], sums of P(a), P(b), P(tie), given d [units] and a tie parameter."""

    parameter: str | None
    """The name of the tie parameter; None if there is none."""
    start: Callable[[float], float]
    """From the share of ties to the tie parameter of equal models."""
    shown: Callable[[float], float]
    """From the tie parameter as it is fitted to that of the formula."""
    scores: Callable[[np.ndarray, float, np.ndarray], Scores]
    information: Callable[[np.ndarray, float, np.ndarray], Information]


def _logistic(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns 1 / (1 + exp(-d)) and log(1 + exp(d)), several times faster than `expit` and `logaddexp`."""
    small = np.exp(-np.abs(d))
    larger = 1 / (1 + small)
    return np.where(d >= 0, larger, small * larger), np.maximum(d, 0) - np.log(larger)


def _half_scores(d: np.ndarray, tie: float, outcomes: np.ndarray) -> Scores:
    a, b, ties = outcomes.T
    won, total = a + ties / 2, a + b + ties
    p, log_sum = _logistic(d)
    return won * d - total * log_sum, won - total * p, np.zeros(len(d))


def _half_information(d: np.ndarray, tie: float, outcomes: np.ndarray) -> Information:
    a, b, ties = outcomes.T
    p, nothing = _logistic(d)[0], np.zeros(len(d))
    return (a + b + ties) * p * (1 - p), nothing, nothing


def _davidson_shares(d: np.ndarray, log_nu: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the logarithm of the sum, P(a), P(b) and P(tie)."""
    distance = np.abs(d) / 2
    top = np.maximum(distance, log_nu)
    a, b, tie = np.exp(d / 2 - top), np.exp(-d / 2 - top), np.exp(log_nu - top)
    total = a + b + tie
    return top + np.log(total), a / total, b / total, tie / total


def _davidson_scores(d: np.ndarray, log_nu: float, outcomes: np.ndarray) -> Scores:
    won_a, won_b, tied = outcomes.T
    log_sum, a, b, tie = _davidson_shares(d, log_nu)
    lead, total = (won_a - won_b) / 2, won_a + won_b + tied
    return lead * d + tied * log_nu - total * log_sum, lead - total * (a - b) / 2, tied - total * tie


def _davidson_information(d: np.ndarray, log_nu: float, outcomes: np.ndarray) -> Information:
    won_a, won_b, tied = outcomes.T
    _, a, b, tie = _davidson_shares(d, log_nu)
    total, lead = won_a + won_b + tied, a - b
    return total * (a + b - lead**2) / 4, -total * tie * lead / 2, total * tie * (1 - tie)


def _rao_kupper_scores(d: np.ndarray, theta: float, outcomes: np.ndarray) -> Scores:
    a, b, tie = outcomes.T
    (not_a, log_a), (not_b, log_b) = _logistic(theta - d), _logistic(theta + d)
    value = -(a + tie) * log_a - (b + tie) * log_b + tie * np.log(np.expm1(2 * theta))
    by_theta = -(a + tie) * not_a - (b + tie) * not_b - tie * 2 / np.expm1(-2 * theta)
    return value, (a + tie) * not_a - (b + tie) * not_b, by_theta


def _rao_kupper_information(d: np.ndarray, theta: float, outcomes: np.ndarray) -> Information:
    a, b, tie = outcomes.T
    not_a, not_b = _logistic(theta - d)[0], _logistic(theta + d)[0]
    of_a, of_b = (a + tie) * not_a * (1 - not_a), (b + tie) * not_b * (1 - not_b)
    return of_a + of_b, of_b - of_a, of_a + of_b + tie / np.sinh(theta) ** 2


TIES: dict[TieName, TieModel] = {
    "half": TieModel(None, lambda share: 0.0, float, _half_scores, _half_information),
    "davidson": TieModel(
        "nu",
        lambda share: float(np.log(2 * share / (1 - share))),
        lambda log_nu: float(np.exp(log_nu)),
        _davidson_scores,
        _davidson_information,
    ),
    "rao_kupper": TieModel(
        "theta", lambda share: float(2 * np.arctanh(share)), float, _rao_kupper_scores, _rao_kupper_information
    ),
}
