"""The token ids that all sides of a benchmark score. Needs numpy alone, since sides may live in other environments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Rows of token ids laid end to end: row i is `ids[starts[i]:starts[i + 1]]`, int32 and int64."""

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> Rows:
        """Returns the rows of these indices, in their order."""
        lengths = self.lengths[rows]
        ids = [np.empty(0, np.int32), *(self[row] for row in rows)]
        return Rows(np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)]))

    def save(self, path: Path) -> None:
        np.savez(path, ids=self.ids, starts=self.starts)

    @classmethod
    def load(cls, path: Path) -> Rows:
        with np.load(path) as arrays:
            return cls(arrays["ids"], arrays["starts"])


def like_the_whole(lengths: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Returns indices of `count` rows whose lengths are spread as all `lengths` [rows] are, in random order.

    They stand in the middle of equal parts of the sorted rows: a random sample of so few would miss the mean by more.
    All rows come where there are no more than `count`.
    """
    order = np.argsort(lengths, kind="stable")
    if count < len(order):
        order = order[((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)]
    return np.random.default_rng(seed).permutation(order)
