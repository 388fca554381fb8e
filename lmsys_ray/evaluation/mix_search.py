"""The search behind `blend_fit`: which weights and temperature give the lowest log loss, `log_losses` of `tempered`.

For temperatures other than 1 the log loss is not convex in the weights and may have several minima, so that many starts
are tried and the best are minimised. Weights are optimised by their logarithms, since members need weights of 0.5 and
of 0.0001 alike; a weight becomes exactly 0 only by leaving the member out, which is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import minimize

from lmsys_ray.ensemble.blend import tempered
from lmsys_ray.metrics import SMALLEST, log_losses

TEMPERATURES = (0.05, 20.0)
"""Bounds of a fitted temperature. At 20 a blend is close to equal probabilities, at 0.05 to certainty."""

LEAST_WEIGHT = 1e-6
"""The lower bound of a fitted weight other than 0, relative to the largest."""

_TRIED_TEMPERATURES = np.geomspace(1 / 16, 16, 9)
_PAIR_RATIOS = np.exp([0, 1.5, 4, 7, 11])
_DRAWS = 8
"""How many weights of three or more members are tried near each other, and as many over the whole range."""

_SCANNED_ROWS = 1_000
_SEARCHED_ROWS = 20_000
"""Rows on which minima are found; the best of them are then refined on all rows."""

_FOLLOWED = 12
_OF_A_SET = 3
"""How many starts are minimised, in total and for each set of two or more members."""

_NEAR = 1.5
"""Starts of the same set differ by more than this in the logarithm of a weight or the temperature."""

_THINNED = 2
_SMALL_WEIGHT = 0.02
"""Members with less than this weight are tried without."""

_QUICKLY = {"maxiter": 100, "ftol": 1e-9, "gtol": 1e-6, "maxls": 40}
_PRECISELY = {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-8, "maxls": 40}
_FLAT = 1e-4
"""The slope, in nats per unit of log weight and log temperature, below which a minimum counts as reached."""


@dataclass(frozen=True)
class Candidate:
    """A mix and its log loss; `weights` [members] sum to 1."""

    loss: float
    weights: np.ndarray
    temperature: float
    settled: bool
    """Whether this is a minimum, rather than where the solver stopped before one."""


@dataclass(frozen=True)
class Search:
    """Rows on which mixes are tried; `stacked` [members, rows, 3] are probabilities."""

    stacked: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    """Held fixed, if given."""
    temperature: float | None
    """Held fixed, if given."""

    def minimum(self) -> Candidate:
        """Returns the best mix of all those that are tried."""
        part = self._part(_SEARCHED_ROWS)
        tried = sorted((part.descend(*start) for start in part.starts()), key=_loss)
        thinned = sorted((part.pruned(found) for found in tried[:_THINNED]), key=_loss)
        if len(part.labels) < len(self.labels):
            whole = [(found.weights, found.temperature) for found in (thinned[0], tried[0])]
            if self.weights is None:
                # A member that these rows do not need may be the only one to give a rare row's class a probability.
                whole.append((np.maximum(thinned[0].weights, 1 / len(self.labels)), thinned[0].temperature))
            thinned = [self.pruned(min((self.descend(*start) for start in whole), key=_loss))]
        return self.descend(thinned[0].weights, thinned[0].temperature, _PRECISELY)

    def starts(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yields weights and temperatures to start from: the best tried ones of different sets of members."""
        scanned = self._part(_SCANNED_ROWS)
        tried = tried_weights(len(self.stacked)) if self.weights is None else self.weights[None]
        temperatures = _TRIED_TEMPERATURES if self.temperature is None else [self.temperature]
        mixed = np.tensordot(tried, scanned.stacked, 1)
        losses = np.stack([log_losses(tempered(mixed, t), scanned.labels).mean(axis=-1) for t in temperatures], 1)
        begun: dict[bytes, list[np.ndarray]] = {}
        for place in losses.argsort(axis=None):
            weights, temperature = tried[place // len(temperatures)], temperatures[place % len(temperatures)]
            near = begun.setdefault((weights > 0).tobytes(), [])
            point = np.log(np.append(weights[weights > 0], temperature))
            most = _OF_A_SET if np.count_nonzero(weights) > 1 else 1
            if len(near) < most and all(np.abs(point - other).max() > _NEAR for other in near):
                near.append(point)
                if sum(map(len, begun.values())) <= _FOLLOWED or ((weights > 0).all() and len(near) == 1):
                    yield weights, float(temperature)

    def descend(self, weights: np.ndarray, temperature: float, options: dict[str, float] = _QUICKLY) -> Candidate:
        """Returns the local minimum from a mix, by gradient descent (L-BFGS-B); a weight of 0 stays 0."""
        chosen = np.flatnonzero(weights)
        logs = np.log(weights[chosen] / weights.max())
        lowest = np.log(LEAST_WEIGHT)
        bounds = [(lowest, 0.0)] * len(chosen) if self.weights is None else [(log, log) for log in logs]
        temperatures = TEMPERATURES if self.temperature is None else (temperature, temperature)
        bounds.append((np.log(temperatures[0]), np.log(temperatures[1])))
        start = np.clip(np.append(logs, np.log(temperature)), *np.array(bounds).T)
        arguments = (self.stacked[chosen], self.labels)
        result = minimize(loss_and_slope, start, arguments, "L-BFGS-B", jac=True, bounds=bounds, options=options)
        reached = np.zeros(len(weights))
        reached[chosen] = np.exp(result.x[:-1])
        further = np.clip(result.x - result.jac, *np.array(bounds).T) - result.x
        settled = bool(result.success or np.abs(further).max() < _FLAT)
        return Candidate(float(result.fun), reached / reached.sum(), float(np.exp(result.x[-1])), settled)

    def pruned(self, found: Candidate) -> Candidate:
        """Returns `found` without the members of small weight that do not lower the loss."""
        while self.weights is None:
            small = np.flatnonzero((found.weights > 0) & (found.weights < _SMALL_WEIGHT))
            without = [np.where(np.arange(len(found.weights)) == k, 0, found.weights) for k in small]
            best = min((self.descend(weights, found.temperature) for weights in without), key=_loss, default=None)
            if best is None or best.loss > found.loss:
                break
            found = best
        return found

    def _part(self, most: int) -> "Search":
        """Returns the search on at most `most` rows, the same ones each time."""
        if len(self.labels) <= most:
            return self
        rows = np.sort(np.random.default_rng(0).choice(len(self.labels), most, replace=False))
        return Search(self.stacked[:, rows], self.labels[rows], self.weights, self.temperature)


def tried_weights(members: int) -> np.ndarray:
    """Returns weights [tried, members]: each member alone, each pair, all, and every set of up to four members.

    They include similar weights and weights of different orders of magnitude.
    """
    sizes = range(1, members + 1) if members <= 4 else (1, 2, members)
    random = np.random.default_rng(0)
    tried = []
    for size in sizes:
        for chosen in combinations(range(members), size):
            weights = np.zeros((1 if size == 1 else 2 * _DRAWS, members))
            if size == 1:
                weights[:, chosen] = 1
            elif size == 2:
                weights = np.zeros((2 * len(_PAIR_RATIOS), members))
                weights[:, chosen[0]] = np.concatenate([_PAIR_RATIOS, np.ones_like(_PAIR_RATIOS)])
                weights[:, chosen[1]] = np.concatenate([np.ones_like(_PAIR_RATIOS), _PAIR_RATIOS])
            else:
                weights[:_DRAWS, chosen] = np.exp(random.uniform(-3, 0, (_DRAWS, size)))
                weights[_DRAWS:, chosen] = np.exp(random.uniform(-13, 0, (_DRAWS, size)))
            tried.append(weights)
    found = np.concatenate(tried)
    return found / found.sum(axis=1, keepdims=True)


def loss_and_slope(x: np.ndarray, stacked: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the log loss of a mix and its gradient; `x` is log weights [members] and log temperature.

    A row at the floor of the log loss has no slope.
    """
    temperature = float(np.exp(x[-1]))
    shares = np.exp(x[:-1])[:, None, None] * stacked
    mixed = shares.sum(axis=0)
    blended = tempered(mixed, temperature)
    rows = np.arange(len(labels))
    above_floor = blended[rows, labels] > SMALLEST
    difference = blended.copy()
    difference[rows, labels] -= 1
    difference *= above_floor[:, None] / len(labels)
    logs = np.log(np.maximum(blended, SMALLEST**2))
    ratio = np.divide(difference, mixed, out=np.zeros_like(mixed), where=mixed > 0)
    by_weight = np.einsum("mrc,rc->m", shares, ratio) / temperature
    by_temperature = -(difference * logs).sum()
    return float(log_losses(blended, labels).mean()), np.append(by_weight, by_temperature)


def _loss(found: Candidate) -> float:
    return found.loss
