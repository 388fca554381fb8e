"""The features of labelled conversations, in both orders of A and B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from lmsys_ray.members.lightgbm.features import Features
from lmsys_ray.members.lightgbm.scorer import batches, read_turns
from lmsys_ray.members.lightgbm.shrinkage import Turns
from lmsys_ray.members.lightgbm.turns import TurnMatrix
from lmsys_ray.members.orders import exchanged


@dataclass(frozen=True)
class Matrices:
    """The features of all turns, as given and with A and B swapped."""

    straight: TurnMatrix
    swapped: Any
    """CSR or dense, float64 [all turns, columns]."""

    def of(self, conversations: np.ndarray) -> TurnMatrix:
        """Returns the turns, as given, of the `conversations` where the mask bool [conversations] is true."""
        turns = self.turns_of(conversations)
        number = np.cumsum(conversations) - 1
        rows = number[self.straight.rows[turns]]
        return TurnMatrix(self.straight.matrix[turns], rows, self.straight.several[conversations])

    def turns_of(self, conversations: np.ndarray) -> np.ndarray:
        """Returns the mask bool [all turns] of the turns of some conversations."""
        found: np.ndarray = conversations[self.straight.rows]
        return found

    @property
    def weights(self) -> np.ndarray:
        """The weight of each turn in training [all turns]: all of a conversation sum to 1."""
        weights: np.ndarray = 1 / np.bincount(self.straight.rows)[self.straight.rows]
        return weights


def read_matrices(features: Features, conversations: pa.Table, turns: Turns) -> Matrices:
    """Returns the features of `conversations`, their turns apart or joined."""
    straight = _read(features, conversations, turns)
    swapped = features.mirrored(straight.matrix)
    if swapped is None:
        swapped = _read(features, exchanged(conversations), turns).matrix
    return Matrices(straight, swapped)


def _read(features: Features, conversations: pa.Table, turns: Turns) -> TurnMatrix:
    parts = [read_turns(features, batch, turns) for batch in batches(conversations)]
    starts = np.cumsum([0, *(len(part.several) for part in parts[:-1])])
    return TurnMatrix(
        stacked([part.matrix for part in parts]),
        np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.several for part in parts]),
    )


def stacked(parts: list[Any]) -> Any:
    """Returns matrices, CSR or dense, one below the other."""
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)
