"""Scores conversations with averaged gradient-boosted trees."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES, SWAPPED
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.members.lightgbm.artifacts import Artifacts, load
from lmsys_ray.members.lightgbm.booster_checks import split_columns
from lmsys_ray.members.lightgbm.features import Features
from lmsys_ray.members.lightgbm.linear import log_odds, with_linear
from lmsys_ray.members.lightgbm.portable import softmax
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.lightgbm.shrinkage import Turns, averaged, shrunk
from lmsys_ray.members.lightgbm.turns import TurnMatrix, undivided
from lmsys_ray.members.protocol import Scores
from lmsys_ray.storage.cache import local_copy
from lmsys_ray.storage.packaged import locate

_BATCH_CHARACTERS = 1 << 17
"""Characters of a batch, which bound the memory of scoring; a single row may have more."""


class LightGBMScorer:
    """Scores with the mean of the boosters' probabilities on features of the cells, and what `Shrinkage` says."""

    def __init__(self, settings: LightGBMSettings, cells: CellForm) -> None:
        """Loads the artefacts that `settings` name; `cells` is the form of the raw cells.

        Raises `UsageError` or `RunError` where they are missing, damaged or inconsistent.
        """
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        artifacts = load(local_copy(locate(settings.artifacts)))
        self._artifacts = artifacts
        features = artifacts.features(cells)
        if artifacts.vocabularies:  # Terms that no tree uses, most of a vocabulary, are not counted.
            features = features.only(used_columns(artifacts.boosters))
        self._features = features

    def score(self, conversations: pa.Table) -> Scores:
        """Scores a table with the columns of `CONVERSATIONS`."""
        parts = [self._score(batch) for batch in batches(conversations)]
        return Scores(np.concatenate([*parts, np.empty((0, len(CLASSES)))]).astype(np.float32))

    def _score(self, batch: pa.Table) -> np.ndarray:
        shrinkage = self._artifacts.shrinkage
        turns = read_turns(self._features, batch, shrinkage.turns if shrinkage else "joined")
        return conversation_scores(turn_scores(self._artifacts, self._features, turns), turns, self._artifacts)


def read_turns(features: Features, conversations: pa.Table, turns: Turns) -> TurnMatrix:
    """Returns the features of conversations, their turns apart or joined."""
    return features.by_turn(conversations) if turns == "apart" else undivided(features.matrix(conversations))


def turn_scores(artifacts: Artifacts, features: Features, turns: TurnMatrix) -> np.ndarray:
    """Returns the probabilities [all turns, 3] of boosters and linear models, float64."""
    found = predict(artifacts.boosters, features, turns.matrix)
    if artifacts.shrinkage is None or not artifacts.linear or not isinstance(features, PreferenceFeatures):
        return found
    odds = log_odds(artifacts.linear, features.only_differences(turns.matrix))
    return with_linear(found, odds, artifacts.shrinkage.linear_share)


def conversation_scores(scores: np.ndarray, turns: TurnMatrix, artifacts: Artifacts) -> np.ndarray:
    """Returns the probabilities [conversations, 3] for the `scores` [all turns, 3] of their turns, shrunk."""
    if artifacts.shrinkage is None:
        return scores
    return shrunk(averaged(scores, turns), turns.several, artifacts.shrinkage)


def predict(boosters: Sequence[lgb.Booster], features: Features, matrix: Any) -> np.ndarray:
    """Returns the mean probabilities [rows, 3] of boosters, float64, over both orders of A and B if `features` can."""
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
    used = np.zeros(boosters[0].num_feature(), bool)
    for booster in boosters:  # LightGBM's own count omits splits without a recorded gain
        used[split_columns(booster.model_to_string().encode())] = True
    return used


def batches(conversations: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table between rows into batches of about `_BATCH_CHARACTERS`."""
    characters = sum(pc.utf8_length(conversations[cell]).to_numpy() for cell in CELLS)
    number = np.cumsum(characters) // _BATCH_CHARACTERS
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1), conversations.num_rows]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield conversations.slice(start, stop - start)
