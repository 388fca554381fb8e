"""Scores conversations with averaged gradient-boosted trees."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES
from lmsys_ray.config import LightGBMSettings
from lmsys_ray.conversations import CELLS
from lmsys_ray.members.lightgbm.artifacts import load
from lmsys_ray.resources import locate

_BATCH_CHARACTERS = 1 << 18
"""Characters of a batch: what bounds the memory of scoring, whatever the number of rows; one row is always taken."""


class LightGBMScorer:
    """The LightGBM member: features of the raw cells, the mean of its boosters' probabilities."""

    def __init__(self, settings: LightGBMSettings) -> None:
        """Loads the artefacts that `settings` name.

        Raises `UsageError` or `RunError` where they are not there, damaged or do not fit each other.
        """
        artifacts = load(locate(settings.artifacts))
        self._boosters = artifacts.boosters
        features = artifacts.features()
        # Terms that no tree asks for need not be counted: most of a vocabulary.
        self._features = features.only(used_columns(self._boosters))

    def score(self, conversations: pa.Table) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] of a table with the columns of `CONVERSATIONS`."""
        batches = [self._score(batch) for batch in _batches(conversations)]
        return np.concatenate([*batches, np.empty((0, len(CLASSES)))]).astype(np.float32)

    def _score(self, batch: pa.Table) -> np.ndarray:
        matrix = self._features.matrix(batch)
        return np.mean([booster.predict(matrix) for booster in self._boosters], axis=0)


def used_columns(boosters: Sequence[lgb.Booster]) -> np.ndarray:
    """Returns bool [columns]: whether any booster splits on the column."""
    return np.any([booster.feature_importance("split") > 0 for booster in boosters], axis=0)


def _batches(conversations: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table between rows so that a batch holds some `_BATCH_CHARACTERS`."""
    characters = sum(pc.utf8_length(conversations[cell]).to_numpy() for cell in CELLS)
    number = np.cumsum(characters) // _BATCH_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1), conversations.num_rows]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield conversations.slice(start, stop - start)
