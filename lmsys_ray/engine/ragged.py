"""Rows of token ids of different lengths in one array. Needs numpy alone, for processes in other environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def joined(parts: Sequence[RaggedIds]) -> RaggedIds:
    """Returns the rows of all parts, one part after another."""
    lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)])
    flat = [part.flat[part.starts[0] : part.starts[-1]] for part in parts]
    return RaggedIds(np.concatenate(flat), np.cumsum(lengths))


def distinct_rows(ids: RaggedIds) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of rows that differ from all before them, and for each row the place of its like there."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    place = np.empty(len(ids), np.int64)
    for row in range(len(ids)):
        place[row] = places.setdefault(ids[row].tobytes(), len(first))
        if place[row] == len(first):
            first.append(row)
    return np.array(first, np.int64), place


@dataclass(frozen=True)
class RaggedIds:
    """Rows of token ids laid end to end: row i is `flat[starts[i]:starts[i + 1]]`, int32 and int64."""

    flat: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.starts)

    def take(self, rows: np.ndarray) -> RaggedIds:
        """Returns the rows of these indices, in their order."""
        lengths = self.lengths[rows]
        ids = [np.empty(0, np.int32), *(self[row] for row in rows)]
        return RaggedIds(np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def from_arrow(cls, lists: Any) -> RaggedIds:
        """Returns the rows of an Arrow array of lists, without a copy."""
        return cls(lists.flatten().to_numpy(), lists.offsets.to_numpy() - lists.offsets[0].as_py())

    def save(self, path: Path) -> None:
        """Writes the rows to an `.npz` file."""
        np.savez(path, flat=self.flat, starts=self.starts)

    @classmethod
    def load(cls, path: Path) -> RaggedIds:
        """Returns the rows of a file of `save`."""
        with np.load(path) as arrays:
            return cls(arrays["flat"], arrays["starts"])
