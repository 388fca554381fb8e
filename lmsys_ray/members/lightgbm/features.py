"""The kinds of features that boosters can be fitted on."""

from typing import Literal, Protocol, Self

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from lmsys_ray.members.lightgbm.notebook import NotebookFeatures
from lmsys_ray.members.lightgbm.vectorizer import Vectorizer

FeatureKind = Literal["notebook"]


class Features(Protocol):
    """Turns conversations into the matrix that boosters read."""

    columns: int

    def only(self, used: np.ndarray) -> Self:
        """Returns the same features with columns left empty where `used` bool [columns] is false."""
        ...

    def matrix(self, conversations: pa.Table) -> csr_matrix:
        """Returns float64 [rows, columns] for a table with the columns of `CONVERSATIONS`."""
        ...


def features_of(kind: FeatureKind, words: Vectorizer, characters: Vectorizer) -> Features:
    """Returns the features of a kind over two vocabularies."""
    return {"notebook": NotebookFeatures}[kind](words, characters)
