"""The turns of conversations, one row of features each."""

from typing import Any, NamedTuple

import numpy as np


class TurnMatrix(NamedTuple):
    """The features of all turns, those of a conversation together and in their order."""

    matrix: Any
    """[all turns, columns], CSR or dense."""
    rows: np.ndarray
    """The conversation of each turn, int64 [all turns]."""
    several: np.ndarray
    """Whether a conversation has several turns, even where they are taken as one, bool [conversations]."""


def undivided(matrix: Any) -> TurnMatrix:
    """Returns features [conversations, columns] as those of one turn each."""
    return TurnMatrix(matrix, np.arange(matrix.shape[0]), np.zeros(matrix.shape[0], bool))
