"""The process beside a local Ray: however the command ends, what it started goes, and so does its folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmsys_ray.cluster.reaper import remove_stale, session_processes, sessions

DRIVER = """
import os, pathlib, subprocess, sys, time
from lmsys_ray.cluster.reaper import Reaper
root = pathlib.Path(sys.argv[1])
reaper = Reaper(root)
session = root / f"session_2026-01-01_00-00-00_000000_{os.getpid()}"
(session / "logs").mkdir(parents=True)
# A process of Ray that hangs: named after the session, or `ray::...` with a log of the session open.
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", stubborn, f"--session-dir={session}/logs"], start_new_session=True)
log = (session / "logs" / "worker.out").open("w")
subprocess.Popen(["ray::Hung", "-c", stubborn], executable=sys.executable, stdout=log, start_new_session=True)
log.close()
# Of the user, and none of Ray's: it must live on.
subprocess.Popen(["tail", "-f", str(session / "logs" / "worker.out")], stderr=subprocess.DEVNULL)
(root / "up").touch()
exec(sys.argv[2])
"""


def drive(root: Path, ending: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(root), ending]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_driver(root: Path) -> None:
    deadline = time.monotonic() + 30
    while not (root / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("ending", "sent", "sentence"),
    [
        ("time.sleep(600)", signal.SIGKILL, "was ended, by a signal or by Ray's core, before it could say why"),
        ("os._exit(7)", None, "was ended, by a signal or by Ray's core, before it could say why"),
        ("reaper.finish()", None, ""),
        ("reaper.notify(); os._exit(1)", None, ""),
    ],
)
def test_nothing_of_a_session_outlives_the_command(
    tmp_path: Path, ending: str, sent: signal.Signals | None, sentence: str
) -> None:
    process = drive(tmp_path, ending)
    wait_for_driver(tmp_path)
    if sent:
        assert len(session_processes(sessions(tmp_path, process.pid))) == 2
        process.send_signal(sent)
    process.wait(30)
    _, said = process.communicate(timeout=30)  # until the reaper, which holds it open, has ended
    assert sentence in said
    assert bool(said) == bool(sentence), said
    folder = next(iter(tmp_path.glob("session_*")), None)
    assert folder is None
    assert _ended_here(tmp_path) == [b"tail"]


def _ended_here(folder: Path) -> list[bytes]:
    """Ends the processes whose command names `folder`, and returns their programs."""
    spared = [pid for pid in os.listdir("/proc") if pid.isdigit() and str(folder).encode() in _command(pid)]
    names = [_command(pid).split(b"\0")[0] for pid in spared]
    for pid in spared:
        os.kill(int(pid), signal.SIGKILL)
    return names


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_logs_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    process = drive(tmp_path, "reaper.notify(keep_logs=True); os._exit(1)")
    process.communicate(timeout=30)
    (folder,) = sessions(tmp_path, process.pid)
    assert (folder / "logs" / "worker.out").exists()
    _ended_here(folder)


def test_sessions_that_died_long_ago_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hour = 3600.0
    for name, pid, age in (("old", dead.pid, 2 * hour), ("new", dead.pid, 0), ("own", os.getpid(), 2 * hour)):
        logs = tmp_path / f"session_{name}_{pid}" / "logs"
        logs.mkdir(parents=True)
        (logs / "raylet.out").touch()
        then = time.time() - age
        for path in (logs / "raylet.out", logs.parent):
            os.utime(path, (then, then))
    (tmp_path / "session_latest").symlink_to(tmp_path)
    (tmp_path / "mine.txt").touch()
    remove_stale(tmp_path, hour)
    left = sorted(path.name.split("_")[1] if path.is_dir() else path.name for path in tmp_path.iterdir())
    assert left == ["latest", "mine.txt", "new", "own"]
