"""Scores conversations with averaged gradient-boosted trees."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES
from lmsys_ray.config import LightGBMSettings
from lmsys_ray.conversations import CELLS, CellForm
from lmsys_ray.local_copies import local_copy
from lmsys_ray.members.lightgbm.artifacts import load
from lmsys_ray.members.lightgbm.features import Features
from lmsys_ray.members.lightgbm.portable import softmax
from lmsys_ray.members.usage import Usage
from lmsys_ray.resources import locate

SWAPPED = [1, 0, 2]
"""The class of a row (a, b, tie) once A and B have changed places."""

_BATCH_CHARACTERS = 1 << 17
"""Characters of a batch: what bounds the memory of scoring, whatever the number of rows; one row is always taken."""


class LightGBMScorer:
    """The LightGBM member: features of the cells, the mean of its boosters' probabilities."""

    def __init__(self, settings: LightGBMSettings, cells: CellForm) -> None:
        """Loads the artefacts that `settings` name; `cells` says what the raw cells hold.

        Raises `UsageError` or `RunError` where they are not there, damaged or do not fit each other.
        """
        self.usage = Usage()  # of tokens, which it has none of
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        artifacts = load(local_copy(locate(settings.artifacts)))
        self._boosters = artifacts.boosters
        features = artifacts.features(cells)
        # Terms that no tree asks for need not be counted: most of a vocabulary.
        self._features = features.only(used_columns(self._boosters))

    def score(self, conversations: pa.Table) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] of a table with the columns of `CONVERSATIONS`."""
        scores = [self._score(batch) for batch in batches(conversations)]
        return np.concatenate([*scores, np.empty((0, len(CLASSES)))]).astype(np.float32)

    def _score(self, batch: pa.Table) -> np.ndarray:
        return predict(self._boosters, self._features, self._features.matrix(batch))


def predict(boosters: Sequence[lgb.Booster], features: Features, matrix: Any) -> np.ndarray:
    """Returns the mean probabilities [rows, 3] of boosters, float64; of both orders of A and B where `features` can."""
    straight = _mean(boosters, features, matrix)
    mirrored = features.mirrored(matrix)
    if mirrored is None:
        return straight
    return (straight + _mean(boosters, features, mirrored)[:, SWAPPED]) / 2


def _mean(boosters: Sequence[lgb.Booster], features: Features, matrix: Any) -> np.ndarray:
    if not features.portable:
        return np.mean([booster.predict(matrix) for booster in boosters], axis=0)
    # LightGBM's own softmax takes its exponentials from the C library, whose last bit depends on the CPU.
    total = np.zeros((matrix.shape[0], len(CLASSES)))
    for booster in boosters:
        total += softmax(np.asarray(booster.predict(matrix, raw_score=True)))
    return total / len(boosters)


def used_columns(boosters: Sequence[lgb.Booster]) -> np.ndarray:
    """Returns bool [columns]: whether any booster splits on the column."""
    return np.any([booster.feature_importance("split") > 0 for booster in boosters], axis=0)


def batches(conversations: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table between rows so that a batch holds some `_BATCH_CHARACTERS`."""
    characters = sum(pc.utf8_length(conversations[cell]).to_numpy() for cell in CELLS)
    number = np.cumsum(characters) // _BATCH_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1), conversations.num_rows]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield conversations.slice(start, stop - start)
