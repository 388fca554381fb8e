"""Links: from the difference of two responses' scores to the probabilities of A preferred, B preferred and a tie.

With d = (s_a - s_b) / scale, in logits:

- Davidson (1970): P(a) : P(b) : P(tie) = exp(d / 2) : exp(-d / 2) : tie
- Rao and Kupper (1967): P(a) = 1 / (1 + exp(tie - d)), P(b) = 1 / (1 + exp(tie + d)), P(tie) = the rest

Both are those of Bradley and Terry (1952) where `tie` is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

LinkName = Literal["davidson", "rao_kupper"]

LARGEST_TIE = 1e300
"""The largest `tie` of Davidson's link that is returned."""

SLOPES = (1e-3, 1e3)
"""Bounds of the fitted spread of d (root mean square, in logits): at the lower one, scores say nothing of labels."""

_LARGEST_SHARE = 1 - 1e-9
"""The largest mean P(tie) that is reached: at 1, `tie` would be infinite."""

_LARGEST = 1e300
"""What |d| is cut to, so that no difference is infinite."""


@dataclass(frozen=True)
class Link:
    """A link and its parameters: `scale` above 0, in the unit of scores, and `tie` of at least 0."""

    name: LinkName
    scale: float
    tie: float

    def probabilities(self, differences: np.ndarray) -> np.ndarray:
        """Returns P(a), P(b) and P(tie), float64 [rows, 3], of finite differences s_a - s_b [rows]."""
        found = np.exp(self.log_probabilities(differences))
        return found / found.sum(axis=1, keepdims=True)

    def log_probabilities(self, differences: np.ndarray) -> np.ndarray:
        """Returns the logarithms of `probabilities` [rows, 3], finite but for those of ties where `tie` is 0."""
        with np.errstate(over="ignore"):
            d = np.clip(np.asarray(differences, np.float64) / self.scale, -_LARGEST, _LARGEST)
        return _LOGARITHMS[self.name](d, self.tie)


def _davidson(d: np.ndarray, tie: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        log_tie = np.log(tie)
    log_sum = np.logaddexp(_log_strengths(d), log_tie)
    return np.stack([d / 2 - log_sum, -d / 2 - log_sum, log_tie - log_sum], axis=1)


def _log_strengths(d: np.ndarray) -> np.ndarray:
    """Returns log(exp(d / 2) + exp(-d / 2)) [rows]."""
    distance = np.abs(d)
    return distance / 2 + np.log1p(np.exp(-distance))


def _rao_kupper(d: np.ndarray, tie: float) -> np.ndarray:
    """P(tie) = (exp(2 tie) - 1) P(a) P(b), written so that nothing cancels."""
    distance = np.abs(d)
    with np.errstate(divide="ignore"):
        log_tie = np.minimum(tie - distance, 0) + np.log(-np.expm1(-2 * tie))
    log_tie -= np.log1p(np.exp(-(distance + tie))) + np.log1p(np.exp(-np.abs(distance - tie)))
    return np.stack([-np.logaddexp(0, tie - d), -np.logaddexp(0, tie + d), log_tie], axis=1)


_LOGARITHMS: dict[LinkName, Callable[[np.ndarray, float], np.ndarray]] = {
    "davidson": _davidson,
    "rao_kupper": _rao_kupper,
}


def spread(differences: np.ndarray) -> float:
    """Returns the root mean square of differences [rows], which no exchange of A and B changes; 1 if all are 0.

    Robust spreads make heavy-tailed scores too sure of themselves: docs/lab/links.md.
    """
    if not len(differences):
        return 1.0
    distances = np.abs(np.asarray(differences, np.float64))
    largest = float(distances.max())
    return largest * float(np.sqrt(np.mean((distances / largest) ** 2))) if largest else 1.0


def without_labels(
    name: LinkName, differences: np.ndarray, tie_share: float, scale: float | None = None, tie: float | None = None
) -> Link:
    """Returns the link for differences s_a - s_b [rows] of which no labels are known; what is given is kept.

    `scale` is their `spread`, so that d has a root mean square of 1; `tie` gives a mean P(tie) of `tie_share`, 0 to 1.
    Without rows, `scale` is 1 and `tie` that of two equal scores. A share of 1 is missed by 1e-9, and one that takes a
    `tie` above `LARGEST_TIE` by more.
    """
    scale = spread(differences) if scale is None else scale
    return Link(name, scale, _tie_of_share(name, differences, scale, tie_share) if tie is None else tie)


def _tie_of_share(name: LinkName, differences: np.ndarray, scale: float, share: float) -> float:
    """Returns the `tie` with a mean P(tie) of `share`.

    It is at least the one of equal scores, which are likeliest to tie; with more than that by the largest distance,
    even the rows that are furthest apart have such a P(tie).
    """
    from scipy.optimize import brentq  # slow to import, and settings import this module
    from scipy.special import expit

    if share <= 0:
        return 0.0
    share = min(share, _LARGEST_SHARE)
    with np.errstate(over="ignore"):
        distances = np.minimum(np.abs(np.asarray(differences, np.float64)) / scale, _LARGEST)
    reach = float(distances.max(initial=0))
    if name == "davidson":
        low, reach, log_strengths = float(np.log(2 * share / (1 - share))), reach / 2, _log_strengths(distances)

        def excess(x: float) -> float:
            return float(expit(x - log_strengths).mean()) - share
    else:
        low = float(2 * np.arctanh(share))

        def excess(x: float) -> float:
            return float((expit(x - distances) - expit(-x - distances)).mean()) - share

    found = low
    if len(distances) and excess(low) < 0:
        high = low + reach
        found = high if excess(high) <= 0 else float(brentq(excess, low, high, xtol=1e-10, maxiter=2_000))
    return float(np.exp(min(found, np.log(LARGEST_TIE)))) if name == "davidson" else found


def fit_link(
    name: LinkName,
    differences: np.ndarray,
    labels: np.ndarray,
    scale: float | None = None,
    tie: float | None = None,
    row_weights: np.ndarray | None = None,
) -> Link:
    """Returns the link of the highest likelihood for differences s_a - s_b and classes (0, 1 or 2) [rows].

    What is given of `scale` and `tie` is kept. The log-likelihood is concave in 1 / scale and, in Davidson's link, log
    tie or, in that of Rao and Kupper, tie (Burridge 1981), so that a maximum is the only one. A spread of d outside
    `SLOPES` is cut to its bound: the upper one where scores separate the labels, the lower one where `agreement` is not
    positive. Without tied labels `tie` is 0.
    """
    from scipy.optimize import minimize  # slow to import, and settings import this module

    shares = np.full(len(labels), 1 / len(labels)) if row_weights is None else row_weights / row_weights.sum()
    unit, ties = spread(differences), float(shares[labels == 2].sum())
    if tie is None and ties == 0:
        tie = 0.0
    if scale is None and agreement(differences, labels, row_weights) <= 0:
        scale = unit / SLOPES[0]
    if scale is not None and tie is not None:
        return Link(name, scale, tie)
    begin = without_labels(name, differences, ties, unit if scale is None else scale, tie)
    slopes = SLOPES if scale is None else (unit / scale, unit / scale)
    log_tie = np.log(begin.tie) if begin.tie else 0.0
    log_ties = (log_tie, log_tie) if tie is not None else (log_tie - 50, min(log_tie + 50, np.log(LARGEST_TIE)))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        link = Link(name, unit / x[0], begin.tie if tie is not None else float(np.exp(x[1])))
        return _loss_and_slope(link, differences, labels, shares, unit)

    start = np.array([unit / begin.scale, log_tie])
    options = {"maxiter": 1_000, "ftol": 1e-15, "gtol": 1e-9, "maxls": 50}
    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=[slopes, log_ties], options=options).x
    return Link(
        name,
        unit / float(found[0]) if scale is None else scale,
        float(np.exp(found[1])) if tie is None else tie,
    )


def agreement(differences: np.ndarray, labels: np.ndarray, row_weights: np.ndarray | None = None) -> float:
    """Returns whether higher scores are preferred: the mean of s_a - s_b where A was, less that where B was, per row.

    It is the slope of the log-likelihood in 1 / scale where that is 0, of either link and whatever `tie` is. Where it
    is negative, no positive scale fits better than an infinite one: the scores are those of a reversed head.
    """
    if not len(labels):
        return 0.0
    preferred = np.take([1.0, -1.0, 0.0], labels)
    return float(np.average(np.asarray(differences, np.float64) * preferred, weights=row_weights))


def _loss_and_slope(
    link: Link, differences: np.ndarray, labels: np.ndarray, shares: np.ndarray, unit: float
) -> tuple[float, np.ndarray]:
    """Returns the log loss over rows of these `shares`, and its gradient in (unit / scale, log tie)."""
    logs = link.log_probabilities(differences)
    p = np.exp(logs)
    x = np.asarray(differences, np.float64) / unit
    loss = -float(shares @ logs[np.arange(len(labels)), labels])
    if link.name == "davidson":
        by_d = np.take([0.5, -0.5, 0.0], labels) - (p[:, 0] - p[:, 1]) / 2
        by_tie = (labels == 2) - p[:, 2]
    else:
        by_d = np.choose(labels, [1 - p[:, 0], p[:, 1] - 1, p[:, 1] - p[:, 0]])
        growth = 2 / np.expm1(min(2 * link.tie, 700.0)) if link.tie else 0.0
        by_tie = link.tie * np.choose(labels, [p[:, 0] - 1, p[:, 1] - 1, growth + p[:, 0] + p[:, 1]])
    return loss, -np.array([shares @ (by_d * x), shares @ by_tie])
