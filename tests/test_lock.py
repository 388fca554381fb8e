"""One start at a time works in a run directory."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmsys_ray import lock
from lmsys_ray.errors import RunError
from lmsys_ray.lock import RunLock
from lmsys_ray.processes import Process
from lmsys_ray.run import RunDirectory

HOLDER = """
import sys, time
from lmsys_ray.lock import RunLock
from lmsys_ray.run import RunDirectory
with RunLock(RunDirectory(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_start_is_refused_until_the_first_is_dead(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    run = RunDirectory(tmp_path)
    sentence = rf"is at work for process {holder.pid} on {socket.gethostname()} since 20.* UTC; wait for it"
    with pytest.raises(RunError, match=sentence), RunLock(run):
        pass
    holder.kill()  # Not reaped: a zombie is dead.
    time.sleep(0.2)
    with RunLock(run) as held:
        held.check()
        assert json.loads(run.read_lock())["process"]["pid"] == os.getpid()
    assert not run.lock.exists()
    holder.wait()


def edited(run: RunDirectory, **changes: object) -> None:
    values = json.loads(run.read_lock())
    for key, value in changes.items():
        (values["process"] if key in values["process"] else values)[key] = value
    run.replace_lock(json.dumps(values))


@pytest.fixture
def left_over(tmp_path: Path) -> RunDirectory:
    """A run directory whose lock is left over from a process that lives on no more."""
    run = RunDirectory(tmp_path)
    kept = RunLock(run).__enter__()
    text = run.read_lock()
    kept.__exit__(None, None, None)
    run.replace_lock(text)
    return run


def test_a_process_number_given_to_another_process_is_no_holder(left_over: RunDirectory) -> None:
    edited(left_over, started="1")
    with RunLock(left_over) as held:
        held.check()


def test_a_holder_on_another_machine_lives_as_long_as_it_beats(
    left_over: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.05)
    edited(left_over, host="elsewhere", beat=time.time() - 5)
    with pytest.raises(RunError, match=r"process .* on elsewhere"), RunLock(left_over):
        pass
    edited(left_over, beat=time.time() - 500)
    with RunLock(left_over) as held:
        held.check()


def test_torn_lock_is_taken_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.replace_lock('{"process"')
    with RunLock(run) as held:
        held.check()


def test_a_start_whose_lock_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.05)
    run = RunDirectory(tmp_path)
    with RunLock(run) as held:
        edited(run, token="another", host="elsewhere")
        time.sleep(0.3)
        with pytest.raises(RunError, match=r"is at work for process .* on elsewhere"):
            held.check()
    assert json.loads(run.read_lock())["token"] == "another", "the other's lock stays"


def test_processes_are_told_apart(tmp_path: Path) -> None:
    own = Process.current()
    assert own.is_near()
    assert own.lives()
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
    assert sleeper.stdout is not None
    sleeper.stdout.readline()
    started = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
    other = Process(own.host, own.namespace, sleeper.pid, started)
    assert not Process(own.host, own.namespace, sleeper.pid, "1").kill()
    assert not Process("elsewhere", own.namespace, sleeper.pid, started).kill()
    assert other.kill()
    sleeper.wait()
    assert not other.kill()
