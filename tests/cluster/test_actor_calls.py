"""Functions that are called inside an actor, by a method of Ray's that may go."""

import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from lmsys_ray.cluster.actor_calls import run_in_actor


class Idle:
    """An actor that does nothing."""

    def process(self) -> int:
        return os.getpid()


def write_process(path: Path) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(str(os.getpid()))
    aside.rename(path)


@pytest.mark.usefixtures("ray_session")
def test_the_function_runs_in_the_actors_process(tmp_path: Path) -> None:
    actor = ray.remote(num_cpus=0)(Idle).remote()
    assert run_in_actor(actor, partial(write_process, tmp_path / "process"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "process").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert int((tmp_path / "process").read_text()) == ray.get(actor.process.remote())


def test_a_ray_without_the_method_is_no_error(tmp_path: Path) -> None:
    assert not run_in_actor(SimpleNamespace(), partial(write_process, tmp_path / "process"))
    assert list(tmp_path.iterdir()) == []
