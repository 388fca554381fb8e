"""The weighted geometric mean of members' probabilities."""

from collections.abc import Mapping

import numpy as np

from lmsys_ray.ensemble.blend import softmax

_NO_MORE = 1e-9
"""Shares of weight that differ by less count as equal."""


def geometric(members: Mapping[str, np.ndarray], weights: Mapping[str, float], temperature: float = 1.0) -> np.ndarray:
    """Returns the weighted geometric mean [rows, 3] at a temperature, each row summing to 1.

    `weights` sum to 1. A class to which a member of weight above 0 gives 0 is 0 (a logarithmic opinion pool, Genest and
    Zidek 1986). Where that would leave no class, those stay which members of the least weight rule out, by the
    probabilities of the others: the limit of ever smaller probabilities in place of 0.
    """
    shape = next(iter(members.values())).shape
    logits, ruled_out = np.zeros(shape), np.zeros(shape)
    for name, probabilities in members.items():
        impossible = probabilities == 0
        logits += weights[name] * np.log(np.where(impossible, 1.0, probabilities))
        ruled_out += weights[name] * impossible
    logits[ruled_out > ruled_out.min(axis=1, keepdims=True) + _NO_MORE] = -np.inf
    return softmax(logits, temperature)
