"""What a replica does before it scores anything."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.registry import Package
from lmsys_ray.run_directory.manifest import UNBOUND
from lmsys_ray.run_directory.score_checks import misfit
from lmsys_ray.scoring import shard_worker
from lmsys_ray.scoring.shard_worker import ShardScorer


def replica(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[int]) -> ShardScorer:
    """A replica to which Ray gave `gpus`, on a machine on which torch sees none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, gpus)))
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kind = SimpleNamespace(scorer=lambda settings, cells: SimpleNamespace(notes=[]))
    monkeypatch.setattr(shard_worker, "kind_of", lambda settings: kind)
    reporter = SimpleNamespace(loading=nullcontext)
    settings = SimpleNamespace(swap=False)
    told: dict[str, Any] = {"settings": settings, "cells": "auto", "reporter": lambda step: reporter}
    told |= {"binding": UNBOUND, "originals": (), "shared": None}
    work: Any = SimpleNamespace(run=str(folder), name="judge", **told)
    return ShardScorer(work)


def test_a_replica_does_not_compute_on_the_cpu_in_place_of_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMSYS_RAY_PRETEND_GPUS")
    made = replica(tmp_path, monkeypatch, [0])
    with pytest.raises(UsageError, match=r"^members\.judge: device: a replica reserved 1 GPUs but torch .* sees 0; "):
        made(pa.table({"shard": [0]}))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("wrong", [[np.nan, 0.5, 0.5], [np.inf, 0, 0], [1.2, -0.1, -0.1], [0.2, 0.2, 0.13]])
def test_rows_of_which_a_model_makes_no_probabilities_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool, wrong: list[float]
) -> None:
    """In either order of A and B; the other rows keep their scores."""
    made: Any = replica(tmp_path, monkeypatch, [])
    made._swap, made._reporter = swap, SimpleNamespace(rows=lambda shard, count: lambda start, stop: nullcontext())
    given = np.tile(np.array([0.5, 0.3, 0.2], np.float32), (8 if swap else 4, 1))
    given[-2] = wrong
    made._scorer = SimpleNamespace(score=lambda rows: Scores(given))
    encoded = pa.table({"row": [8, 9, 11, 12] * (2 if swap else 1)})
    scores, _ = made._score(0, encoded, {10: "too long"})
    assert scores["row"].to_pylist() == [8, 9, 10, 11, 12]
    reasons = scores["reason"].to_pylist()
    assert [reason is None for reason in reasons] == [True, True, False, False, True]
    assert reasons[3].startswith("the model gave no probabilities")
    assert misfit(pa.table({"row": range(8, 13), "rejected": [False] * 5}), scores) is None


@pytest.mark.parametrize("swap", [False, True])
def test_rows_that_a_scorer_names_are_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool) -> None:
    """All in one call; what it gave for them does not count, whether it looks like probabilities or not."""
    made: Any = replica(tmp_path, monkeypatch, [])
    made._swap, made._reporter = swap, SimpleNamespace(rows=lambda shard, count: lambda start, stop: nullcontext())
    given = np.tile(np.array([0.5, 0.3, 0.2], np.float32), (8 if swap else 4, 1))
    given[1] = np.nan
    calls = []

    def score(rows: pa.Table) -> Scores:
        calls.append(rows.num_rows)
        return Scores(given, failed={1: "unknown (id x)", 3: "odd"})

    made._scorer = SimpleNamespace(score=score)
    scores, _ = made._score(0, pa.table({"row": [8, 9, 11, 12] * (2 if swap else 1)}), {10: "too long"})
    assert scores["row"].to_pylist() == [8, 9, 10, 11, 12]
    assert scores["reason"].to_pylist() == [None, "unknown (id x)", "too long", None, "odd"]
    assert [value is None for value in scores["a"].to_pylist()] == [False, True, True, False, True]
    assert calls == [len(given)]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (Scores(np.full((3, 3), 1 / 3, np.float32)), "probabilities of shape (3, 3) for 4 rows of 3 classes"),
        (Scores(np.full((4, 2), 1 / 2, np.float32)), "probabilities of shape (4, 2) for 4 rows of 3 classes"),
        (Scores(np.full((4, 3), 1 / 3), {"margin": np.zeros(3)}), "3 values of margin for 4 rows"),
        (Scores(np.full((4, 3), 1 / 3), tokens=np.zeros(2, np.int64)), "2 values of tokens for 4 rows"),
        (Scores(np.full((4, 3), 1 / 3, np.float32), failed={4: "odd"}), "a failure at place 4 of 4 rows"),
        (Scores(np.full((4, 3), 1 / 3), {"row": np.zeros(4)}), "raw outputs named row, as another column of scores is"),
    ],
)
def test_scores_of_other_rows_end_the_job_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Scores, fault: str
) -> None:
    made: Any = replica(tmp_path, monkeypatch, [])
    made._reporter = SimpleNamespace(rows=lambda shard, count: lambda start, stop: nullcontext())
    made._scorer = SimpleNamespace(score=lambda rows: given)
    with pytest.raises(RunError) as refused:
        made._score(0, pa.table({"row": [8, 9, 11, 12]}), {})
    assert str(refused.value) == f"members.judge: its kind gave {fault}; mend the kind"


def test_a_node_without_the_package_of_a_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first call: an actor that dies in its constructor would be started again and again."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    member, package = json.dumps({"kind": "length"}), Package("length-judge", "1.0")
    work = shard_worker.PassSpec(str(tmp_path), "judge", member, "auto", ledger=None, max_deaths=3, package=package)
    made = ShardScorer(work)
    with pytest.raises(UsageError) as refused:
        made(pa.table({"shard": [0]}))
    assert str(refused.value).startswith(
        "members.judge: kind length is that of length-judge 1.0 where the run was started, but of no package on node "
    )
    monkeypatch.setattr(shard_worker, "package_of", lambda kind: Package("length-judge", "2.0"))
    with pytest.raises(UsageError, match=r"but of length-judge 2\.0 on node"):
        assert work.settings


def test_a_replica_without_a_gpu_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSYS_RAY_PRETEND_GPUS")
    replica(tmp_path, monkeypatch, [])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
