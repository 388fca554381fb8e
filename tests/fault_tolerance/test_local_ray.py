"""The Ray that a command starts on this machine alone: closed to others, and gone with it, however it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lmsys_ray.cluster.remote_ray import answers_strangers
from tests.fault_tolerance.jobs import make_lightgbm, make_llama, scored_files, start, write_input
from tests.fault_tolerance.jobs import write_settings as write

pytestmark = pytest.mark.slow

NO_HOME = "/dev/null/home"

WITH_A_HUNG_WORKER = """
import atexit, json, os, sys, time
from lmsys_ray.cluster.connect import ray_cluster
with ray_cluster():
    import ray
    @ray.remote(num_cpus=0)
    class Stubborn:
        def hang_at_exit(self):
            atexit.register(time.sleep, 600)
            return os.getpid()
    actor = Stubborn.remote()
    hung = ray.get(actor.hang_at_exit.remote())
    print(json.dumps({"gcs": ray.get_runtime_context().gcs_address, "hung": hung}), flush=True)
    sys.stdin.readline()
"""

STRANGER = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('in')"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Returns what was started from a folder, which is what Ray's processes have for their working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def left_after(folder: Path, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(process.cmdline()) for process in left if process.is_running()]


def without_authentication(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Ray takes 127.0.0.1 to mean the machine's address, at which nobody listens, unless this is 0.
    return {**kept, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def test_it_is_closed_to_others_and_leaves_no_worker_that_hangs(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WITH_A_HUNG_WORKER],
        cwd=folder,
        env={**os.environ, "HOME": NO_HOME, "RAY_TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    running = processes_in(folder)
    assert told["hung"] in [each.pid for each in running]
    listening = {c.laddr.ip for each in running for c in each.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    (root,) = folder.iterdir()
    assert root.stat().st_mode & 0o777 == 0o700

    assert not answers_strangers(told["gcs"])
    command = [sys.executable, "-W", "ignore", "-c", STRANGER, told["gcs"]]
    refused = subprocess.run(
        command, env=without_authentication(folder), capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode != 0
    assert "in" not in refused.stdout.split()
    assert "InvalidAuthToken" in refused.stderr

    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert left_after(folder, 0) == []
    assert not list(root.glob("r/session_2*"))


@pytest.mark.parametrize("name", ["gcs_server", pytest.param("raylet", marks=pytest.mark.soak)])
def test_a_process_of_rays_that_dies_ends_the_command_with_a_sentence(folder: Path, name: str) -> None:
    write_input(folder / "in.csv", 4000)
    write(folder, {"lightgbm": make_lightgbm(folder)}, shard_rows=2)
    home = folder / "home"
    process = start(folder, variables={"RAY_TMPDIR": str(folder), "HOME": str(home)})
    while process.poll() is None and not scored_files(folder):
        time.sleep(0.05)
    (victim,) = [each for each in processes_in(folder) if each.name() == name]
    victim.kill()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, said
    last = said.splitlines()[-1]
    assert last.startswith(f"error: Ray's {name} (process {victim.pid}) ended before the command; its logs are in "), (
        said
    )
    assert (Path(last.split("are in ")[1].split(" for a day")[0]) / "raylet.out").exists()
    assert left_after(folder, 30) == []
    assert not (home / ".ray").exists()


@pytest.mark.parametrize("sent", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_signal_to_all_processes_stops_the_command(folder: Path, sent: signal.Signals) -> None:
    """As of a terminal that closes, and of a supervisor that stops a job."""
    write_input(folder / "in.csv", 4000)
    write(folder, {"lightgbm": make_lightgbm(folder)}, shard_rows=2)
    process = start(folder, variables={"RAY_TMPDIR": str(folder)})
    while process.poll() is None and not scored_files(folder):
        time.sleep(0.05)
    os.killpg(process.pid, sent)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + sent, said
    assert said.splitlines()[-1].startswith("stopped; what is done is kept, resume with: "), said
    assert left_after(folder, 30) == []


ENDINGS = (None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.mark.parametrize("count", [1, pytest.param(30, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["llama", pytest.param("lightgbm", marks=pytest.mark.soak)])
@pytest.mark.timeout(4 * 3600)
def test_no_process_outlives_its_command_by_half_a_minute(folder: Path, kind: str, count: int) -> None:
    """Ends runs in turns by themselves, Ctrl-C, SIGTERM and SIGKILL; where there is one, by SIGKILL."""
    member = {"llama": make_llama, "lightgbm": make_lightgbm}[kind](folder)
    left: list[str] = []
    for number in range(count):
        ending = ENDINGS[number % len(ENDINGS)] if count > 1 else signal.SIGKILL
        place = folder / str(number)
        place.mkdir()
        write_input(place / "in.csv", 128 if ending is None else 4000)
        write(place, {kind: member}, shard_rows=16 if ending is None else 2)
        process = start(place, variables={"RAY_TMPDIR": str(folder)})
        while ending and process.poll() is None and not scored_files(place):
            time.sleep(0.05)
        if ending:
            process.send_signal(ending)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == {None: 0, signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[ending], (
            said
        )
        left += [f"{number}, {ending}: {name}" for name in left_after(place, 30)]
    assert left == []
    assert not list(folder.glob("lmsys_ray_*/r/session_2*"))
