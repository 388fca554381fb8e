"""Both ways to the features of the LightGBM member compute the same."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmsys_ray.benchmark.sides import features as features_side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.members.lightgbm.features import make_features
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from tests.members.lightgbm.texts import conversations


@pytest.fixture
def task(tmp_path: Path) -> BenchmarkTask:
    task = BenchmarkTask(str(tmp_path), 20, 4096, 4, 1, "wall", [0, 1, 2], 1)
    table = conversations(60, seed=3)
    pq.write_table(table, task.conversations_file)
    features_side.save_vocabularies(table["response_a"].to_pylist(), task.vocabularies_file)
    return task


def test_dense_and_sparse_features_are_equal(task: BenchmarkTask) -> None:
    table = pq.read_table(task.conversations_file)
    settings = [VectorizerSettings.model_validate(part) for part in json.loads(task.vocabularies_file.read_text())]
    dense = features_side.dense_features(table.to_pandas(), [part.sklearn() for part in settings])
    sparse = make_features("notebook", (settings[0], settings[1]), "auto").matrix(table).toarray()
    np.testing.assert_array_equal(dense, sparse)


def test_both_sides_report_the_same_sum(task: BenchmarkTask) -> None:
    dense, sparse = (features_side.load(task, name)() for name in ("dense", "sparse"))
    assert dense["sum"] == pytest.approx(sparse["sum"], rel=1e-6)
    assert dense["before"] > 0
