"""The dispatch of items over actors: devices that each holds, actors without work, items that share a task."""

import gc
import itertools
import os
import threading
import time
from collections import Counter

import pyarrow as pa
import pytest
import ray
from ray.exceptions import RayTaskError

from lmsys_ray.cluster.dispatch import dispatch
from lmsys_ray.cluster.pool import Pool

pytestmark = pytest.mark.usefixtures("ray_session")


class Taken:
    """An actor that tells who it is and which GPUs it holds; the one of `slow` takes its time."""

    def __init__(self, slow_file: str) -> None:
        try:
            os.close(os.open(slow_file, os.O_CREAT | os.O_EXCL))
            self._seconds = 1.5
        except FileExistsError:
            self._seconds = 0.05

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(self._seconds)
        told = {"process": os.getpid(), "gpus": sorted(ray.get_gpu_ids()), "slow": self._seconds > 1}
        return pa.Table.from_pylist([{"item": batch["item"][0].as_py(), **told}])


def as_they_are(batch: pa.Table) -> pa.Table:
    assert batch.num_rows == 1
    return batch


def items(count: int) -> list[dict[str, int]]:
    return [{"item": number} for number in range(count)]


def test_a_replica_of_two_gpus_holds_two_and_those_without_room_are_not_waited_for(tmp_path) -> None:
    told = list(dispatch(items(4), as_they_are, Taken, {"slow_file": str(tmp_path / "slow")}, Pool(3, 0, 2)))
    assert sorted(row["item"] for row in told) == [0, 1, 2, 3]
    assert {tuple(row["gpus"]) for row in told} == {(0, 1)}
    assert len({row["process"] for row in told}) == 1


def test_no_item_waits_behind_a_slow_one_even_where_many_share_a_task(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("lmsys_ray.cluster.dispatch._MOST_BLOCKS", 2)
    began = time.monotonic()
    told = list(dispatch(items(24), as_they_are, Taken, {"slow_file": str(tmp_path / "slow")}, Pool(2, 0, 1)))
    assert sorted(row["item"] for row in told) == list(range(24))
    shares = Counter(row["slow"] for row in told)
    assert shares[False] > shares[True], f"{shares} after {time.monotonic() - began:.0f} s"


class Failing:
    """An actor that fails at each item."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        raise ValueError("no item can be computed")


def test_a_pass_that_fails_gives_its_gpus_back_while_its_error_is_kept() -> None:
    gc.disable()
    try:
        with pytest.raises(RayTaskError, match="no item can be computed") as kept:
            list(dispatch(items(8), as_they_are, Failing, {}, Pool(2, 0, 1)))
        deadline = time.monotonic() + 30
        while ray.available_resources().get("GPU", 0) < 2:
            assert time.monotonic() < deadline, "an actor of the pass holds a GPU"
            time.sleep(0.1)
    finally:
        gc.enable()
    assert kept.value


class Later:
    """An actor whose second item takes long."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self._turn:
            time.sleep(self._seconds)
            self._seconds = 5.0
        return batch.append_column("ended", pa.array([time.time()]))


def test_a_result_is_told_while_the_next_item_is_under_way() -> None:
    told = [(time.time(), row["ended"]) for row in dispatch(items(2), as_they_are, Later, {}, Pool(1, 0.5))]
    assert told[0][0] < told[1][1] - 1


class Writing:
    """An actor that computes in turns and then writes, for as long."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        with self._turn:
            moments = {"began": time.time()}
            time.sleep(0.1)
            moments["computed"] = time.time()
        time.sleep(0.1)
        moments["written"] = time.time()
        return pa.Table.from_pylist([moments])


def test_an_actor_computes_while_it_writes_what_it_computed_before() -> None:
    told = sorted(dispatch(items(24), as_they_are, Writing, {}, Pool(1, 0.5)), key=lambda row: row["began"])
    pairs = list(itertools.pairwise(told))
    assert all(after["began"] >= before["computed"] for before, after in pairs)
    assert any(after["began"] < before["written"] for before, after in pairs)


def test_a_pass_ends_without_actors(tmp_path) -> None:
    list(dispatch(items(2), as_they_are, Taken, {"slow_file": str(tmp_path / "slow")}, Pool(2, 0, 1)))
    deadline = time.monotonic() + 60
    while ray.available_resources().get("GPU") != 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)
