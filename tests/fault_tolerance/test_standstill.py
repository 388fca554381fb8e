"""A process that stands still for a while, as on a machine that is suspended or swaps: the run waits and goes on."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import finish, make_lightgbm, scored_files, start, write_input, write_settings
from tests.fault_tolerance.test_actors import actors
from tests.fault_tolerance.test_local_ray import processes_in
from tests.fault_tolerance.test_power_cut import made

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def process_of(kind: str, driver: int, folder: Path) -> int:
    if kind == "driver":
        return driver
    found = actors(driver) if kind == "actor" else [each.pid for each in processes_in(folder) if each.name() == kind]
    (pid,) = found
    return pid


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("actor", 15),
        *[pytest.param(kind, 50, marks=pytest.mark.soak) for kind in ("driver", "raylet", "gcs_server", "actor")],
    ],
)
def test_the_run_goes_on_to_the_same_bytes(folder: Path, kind: str, seconds: float) -> None:
    write_input(folder / "in.csv", 400, {5: '["unclosed'})
    write_settings(folder, {"lightgbm": make_lightgbm(folder)}, shard_rows=2)
    code, said = finish(folder, "--output", "whole")
    assert code == 0, said
    process = start(folder, variables={"RAY_TMPDIR": str(folder)})
    while process.poll() is None and len(scored_files(folder)) < 5:
        time.sleep(0.01)
    victim = process_of(kind, process.pid, folder)
    os.kill(victim, signal.SIGSTOP)
    try:
        assert process.poll() is None
        time.sleep(seconds)
        assert process.poll() is None, "the run needs the process"
    finally:
        os.kill(victim, signal.SIGCONT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert made(folder / "run") == made(folder / "whole")
