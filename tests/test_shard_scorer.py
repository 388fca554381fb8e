"""What a replica does before it scores anything."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch

from lmsys_ray import shard_scorer
from lmsys_ray.errors import UsageError
from lmsys_ray.shard_scorer import ShardScorer


def replica(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[int]) -> ShardScorer:
    """A replica to which Ray gave `gpus`, on a machine on which torch sees none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, gpus)))
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shard_scorer, "make_scorer", lambda settings, cells: SimpleNamespace(notes=[]))
    reporter = SimpleNamespace(loading=nullcontext)
    settings = SimpleNamespace(swap=False)
    told = {"settings": settings, "cells": "auto", "reporter": lambda step: reporter}
    work: Any = SimpleNamespace(run=str(folder), name="judge", **told)
    return ShardScorer(work)


def test_a_replica_does_not_compute_on_the_cpu_in_place_of_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMSYS_RAY_PRETEND_GPUS")
    made = replica(tmp_path, monkeypatch, [0])
    with pytest.raises(UsageError, match=r"^members\.judge: device: a replica reserved 1 GPUs but torch .* sees 0; "):
        made(pa.table({"shard": [0]}))


def test_a_replica_without_a_gpu_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSYS_RAY_PRETEND_GPUS")
    replica(tmp_path, monkeypatch, [])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
