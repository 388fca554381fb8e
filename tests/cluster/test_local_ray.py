"""Where a local Ray keeps its files, and workers that end with what started them. See also tests/faults."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lmsys_ray.cluster.local_ray import temporary_root
from lmsys_ray.errors import UsageError


def test_its_folder_is_closed_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as short:  # what pytest gives is too long
        monkeypatch.setenv("RAY_TMPDIR", short)
        root = temporary_root()
        assert root.is_dir()
        assert root.is_relative_to(short)
        assert root.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        monkeypatch.setattr(os, "getuid", lambda: 54321)
        with pytest.raises(UsageError, match=r"lmsys_ray_54321 belongs to somebody else; set RAY_TMPDIR"):
            temporary_root()


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("/tmp/" + "x" * 60, "is too long: a socket below it would have a path of"), ("/dev/null", "cannot be written")],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(UsageError, match=reason) as refused:
        temporary_root()
    assert str(refused.value).endswith("set RAY_TMPDIR to a short path of a folder of yours")
    assert not Path(folder).is_dir()


PARENT = """
import os, subprocess, sys, time
os.environ["RAY_RAYLET_PID"] = str(os.getpid())
module = "lmsys_ray.cluster.parent_death"
worker = f"import atexit, time, {module}; atexit.register(time.sleep, 600); print('up', flush=True)"
child = subprocess.Popen([sys.executable, "-c", worker])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_worker_that_hangs_at_its_exit_ends_with_its_raylet() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "up\n"
    time.sleep(0.2)
    assert Path(f"/proc/{child}/exe").exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    deadline = time.monotonic() + 5
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_process_that_another_one_started_does_not_end_with_the_raylet() -> None:
    """Such as one that imports the package in the environment of a worker."""
    command = [sys.executable, "-c", "import lmsys_ray.cluster.parent_death; print('lives')"]
    done = subprocess.run(
        command, env={**os.environ, "RAY_RAYLET_PID": "1"}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "lives\n"
