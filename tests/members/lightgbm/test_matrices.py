"""The rows that boosters are fitted on: each turn by itself, all turns of a conversation as much as one row."""

import numpy as np
import pytest

from lmsys_ray import SWAPPED
from lmsys_ray.members.lightgbm import scorer
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures
from lmsys_ray.members.lightgbm.training.matrices import read_matrices
from lmsys_ray.members.lightgbm.training.options import LightGBMOptions
from lmsys_ray.members.lightgbm.training.train import _dataset
from tests.members.lightgbm.texts import conversations

COUNT = 40


def test_turns_of_all_batches_know_their_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, features = conversations(COUNT, seed=2), PreferenceFeatures("auto")
    whole = features.by_turn(rows)
    monkeypatch.setattr(scorer, "_BATCH_CHARACTERS", 2000)
    matrices = read_matrices(features, rows, "apart")
    assert np.array_equal(matrices.straight.matrix, whole.matrix)
    assert np.array_equal(matrices.straight.rows, whole.rows)
    assert np.array_equal(matrices.straight.several, whole.several)
    assert np.array_equal(matrices.swapped, features.mirrored(whole.matrix))
    chosen = np.arange(COUNT) % 3 == 1
    part = matrices.of(chosen)
    alone = features.by_turn(rows.filter(chosen))
    assert all(np.array_equal(found, expected) for found, expected in zip(part, alone, strict=True))


def test_a_conversation_weighs_as_much_as_another_and_its_turns_have_its_label() -> None:
    features = PreferenceFeatures("auto")
    matrices = read_matrices(features, conversations(COUNT, seed=2), "apart")
    labels, chosen = np.arange(COUNT) % 3, np.arange(COUNT) < 30
    data = _dataset(matrices, labels, chosen, features, swap=True).construct()
    rows = matrices.straight.rows[matrices.turns_of(chosen)]
    assert len(rows) > 30
    assert np.array_equal(data.get_label(), [*labels[rows], *np.array(SWAPPED)[labels[rows]]])
    weights = data.get_weight()
    assert np.bincount(rows, weights[: len(rows)]) == pytest.approx(np.ones(30))
    assert np.array_equal(weights[: len(rows)], weights[len(rows) :])


def test_joined_turns_are_one_row_each() -> None:
    features, rows = PreferenceFeatures("auto"), conversations(COUNT, seed=2)
    matrices = read_matrices(features, rows, "joined")
    assert np.array_equal(matrices.straight.matrix, features.matrix(rows))
    data = _dataset(matrices, np.arange(COUNT) % 3, np.ones(COUNT, bool), features, swap=False).construct()
    assert data.get_weight() is None


def test_the_prior_is_that_of_the_rows_unless_one_is_given() -> None:
    labels = np.array([0, 0, 1, 2])
    shares = [LightGBMOptions().shrinkage(labels), LightGBMOptions(prior=(0.4, 0.5, 0.1)).shrinkage(labels)]
    assert [found.prior for found in shares if found] == [(0.375, 0.375, 0.25), (0.45, 0.45, 0.1)]
    assert LightGBMOptions(features="notebook").shrinkage(labels) is None
    with pytest.raises(ValueError, match="three shares that sum to 1"):
        LightGBMOptions(prior=(0.4, 0.4, 0.4))
