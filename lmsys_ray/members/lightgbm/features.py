"""The kinds of features that boosters can be fitted on."""

from __future__ import annotations

from typing import Any, Literal, Protocol, Self

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.lightgbm.notebook import NotebookFeatures
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures
from lmsys_ray.members.lightgbm.turns import TurnMatrix
from lmsys_ray.members.lightgbm.vectorizer import Vectorizer, VectorizerSettings

FeatureKind = Literal["notebook", "preference"]
"""`notebook`: counts over two vocabularies, as in the notebook; `preference`: statistics without a vocabulary."""


class Features(Protocol):
    """Turns conversations into the matrix that boosters read: a scipy CSR matrix or a dense one, float64."""

    names: list[str]
    """The name of each column, as the boosters know it."""
    columns: int
    portable: bool
    """Whether features and scores must have the same bits on every CPU."""

    def only(self, used: np.ndarray) -> Self:
        """Returns features whose columns may be empty where `used` bool [columns] is false."""
        ...

    def matrix(self, conversations: pa.Table) -> Any:
        """Returns [rows, columns] for a table with the columns of `CONVERSATIONS`."""
        ...

    def by_turn(self, conversations: pa.Table) -> TurnMatrix:
        """Returns the same for each turn of each conversation, where the kind can take them apart."""
        ...

    def mirrored(self, matrix: Any) -> Any | None:
        """Returns the matrix of the same conversations with A and B swapped; None if only one order is scored."""
        ...


def make_features(kind: FeatureKind, vocabularies: tuple[VectorizerSettings, ...], cells: CellForm) -> Features:
    """Returns the features of a kind; those of the notebook need the vocabularies of words and of characters.

    `cells` is the form of the raw cells; the notebook's features count them raw in any form.
    """
    if kind == "preference":
        return PreferenceFeatures(cells)
    words, characters = vocabularies
    return NotebookFeatures(Vectorizer(words), Vectorizer(characters))
