"""Conversations of several turns, made by joining held-out ones, to judge a member on them.

Labelled conversations of several turns are rare. People's one vote on such a conversation is taken to be that on one of
its turns, which one is not known: so is the label of a joined conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsys_ray import SWAPPED

_TURNS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Joined:
    """Which conversations make up each joined one."""

    parts: list[np.ndarray]
    """Their numbers, int64 [parts], for each."""
    swapped: list[np.ndarray]
    """Whether A and B are swapped in each part, bool [parts]."""
    deciding: np.ndarray
    """The part whose label is taken, int64 [joined]."""

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Returns the classes [joined] for the classes int64 [conversations] of all."""
        chosen = [(parts[place], swapped[place]) for parts, swapped, place in self._all()]
        return np.array([SWAPPED[labels[row]] if swap else labels[row] for row, swap in chosen], np.int64)

    def means(self, scores: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Returns the mean `scores` [joined, 3] over all turns.

        `scores` [conversations, 3] are means over the `turns` int64 [conversations] of each.
        """
        result = np.empty((len(self.parts), 3))
        for number, (parts, swapped, _) in enumerate(self._all()):
            sided = np.where(swapped[:, None], scores[parts][:, SWAPPED], scores[parts])
            result[number] = np.average(sided, axis=0, weights=turns[parts])
        return result

    def _all(self) -> zip[tuple[np.ndarray, np.ndarray, int]]:
        return zip(self.parts, self.swapped, self.deciding.tolist(), strict=True)


def join(conversations: np.ndarray, seed: int) -> Joined:
    """Joins the `conversations` int64 [rows] at random, 2 to 5 each, so that none is used twice; the same by `seed`."""
    random = np.random.default_rng(seed)
    order = random.permutation(conversations)
    cuts = np.cumsum(random.choice(_TURNS, size=len(order) // 2 + 1))
    parts = [part for part in np.split(order, cuts[cuts < len(order)]) if len(part) > 1]
    swapped = [random.integers(2, size=len(part)).astype(bool) for part in parts]
    return Joined(parts, swapped, np.array([random.integers(len(part)) for part in parts], np.int64))
