"""One start at a time works in a run directory."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.processes import Process
from lmsys_ray.run_directory import lock
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import RunLock

HALF_A_CENTURY = 55 * 365 * 86400

HOLDER = """
import sys, time
from lmsys_ray.run_directory.lock import RunLock
from lmsys_ray.run_directory.layout import RunDirectory
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
    del values["checksum"]
    for key, value in changes.items():
        (values["process"] if key in values["process"] else values)[key] = value
    checksum = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    run.replace_lock(json.dumps({**values, "checksum": checksum}))


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
    text = left_over.read_lock()
    for silent in (-500, 86400, HALF_A_CENTURY, -HALF_A_CENTURY):
        left_over.replace_lock(text)
        edited(left_over, beat=time.time() + silent)
        with RunLock(left_over) as held:
            held.check()


@pytest.mark.parametrize("ahead", [86400, HALF_A_CENTURY, -HALF_A_CENTURY])
def test_a_holder_whose_clock_is_wrong_lives_as_long_as_it_beats(
    left_over: RunDirectory, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.2)
    edited(left_over, host="elsewhere", beat=time.time() + ahead)
    beats = threading.Thread(
        target=lambda: [(time.sleep(0.1), edited(left_over, beat=time.time() + ahead + n)) for n in range(8)]
    )
    beats.start()
    with pytest.raises(RunError, match=r"process .* on elsewhere"), RunLock(left_over):
        pass
    beats.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.05)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "null", '{"process": []}', '{"process": {"pid": {}}}', "[" * 99_999, "\x00", '{"beat": "soon"}', "{}"],
)
def test_a_lock_that_no_start_has_written_is_taken_over(tmp_path: Path, text: str, quick: None) -> None:
    run = RunDirectory(tmp_path)
    run.replace_lock(text)
    with RunLock(run) as held:
        held.check()


@pytest.mark.parametrize("key", ["pid", "host", "since", "token", "beat", "started", "namespace"])
def test_a_lock_with_a_nested_value_is_taken_over(left_over: RunDirectory, key: str, quick: None) -> None:
    edited(left_over, **{key: [{"a": []}]})
    with RunLock(left_over) as held:
        held.check()


def test_torn_lock_is_taken_over(tmp_path: Path, quick: None) -> None:
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
    assert own.is_local()
    assert own.is_alive()
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


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 1.0)


DAMAGES = ["", "{", "\x00\xff", "[" * 99_999]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_lock_of_a_start_at_work_is_not_taken_over(tmp_path: Path, text: str, beating: None) -> None:
    run = RunDirectory(tmp_path)
    with RunLock(run) as held:
        run.replace_lock(text)
        with pytest.raises(RunError, match=rf"is at work for process {os.getpid()} on"), RunLock(run):
            pass
        held.check()


@pytest.mark.parametrize("seed", range(8))
def test_a_lock_whose_bytes_flipped_belongs_to_whom_it_did(tmp_path: Path, seed: int, beating: None) -> None:
    """Be it the number of its process or the name of its machine, by which it would seem dead."""
    run, chance = RunDirectory(tmp_path), random.Random(seed)
    with RunLock(run) as held:
        data = bytearray(run.lock.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        run.lock.write_bytes(data)
        with pytest.raises(RunError, match="is at work for process"), RunLock(run):
            pass
        held.check()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_starts_at_once_one_works(tmp_path: Path, stale: bool, beating: None) -> None:
    run, together, held, refused = RunDirectory(tmp_path), threading.Barrier(8), list[str](), list[str]()
    if stale:
        run.create_lock("of nobody")

    def begin() -> None:
        together.wait()
        try:
            with RunLock(run) as own:
                held.append(own.token)
                time.sleep(2)
                own.check()
        except RunError as error:
            refused.append(str(error))

    starts = [threading.Thread(target=begin) for _ in range(8)]
    for each in starts:
        each.start()
    for each in starts:
        each.join()
    assert (len(held), len(refused)) == (1, 7)
    assert all("is at work for process" in sentence for sentence in refused)
    assert not run.lock.exists()
