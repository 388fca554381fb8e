"""On a machine alone Ray's helpers get a lower priority than a replica on its CPUs, and nothing else does."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.fault_tolerance.jobs import ROOT, make_llama, scored_files, start, write_input, write_settings

GATED = Path(__file__).parent / "gated"

ONE_THREAD_STAYS = """
import os, threading
from lmsys_ray.cluster.idle_priority import lower_priority
other = threading.Thread(target=threading.Event().wait, daemon=True)
other.start()
lower_priority(but=os.getpid())
print([os.sched_getscheduler(thread) == os.SCHED_IDLE for thread in (os.getpid(), other.native_id)])
"""


def test_all_threads_but_one_get_the_lower_priority() -> None:
    assert subprocess.check_output([sys.executable, "-c", ONE_THREAD_STAYS], cwd=ROOT, text=True) == "[False, True]\n"


@pytest.mark.slow
def test_helpers_get_the_lower_priority_once_a_shard_is_scored_and_a_replica_goes_first(tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 24)
    write_settings(tmp_path, {"llama": make_llama(tmp_path) | {"device": "cpu"}}, shard_rows=8)
    (tmp_path / "gate").mkdir()
    gated = {"PYTHONPATH": f"{GATED}:{ROOT}", "GATE": str(tmp_path / "gate"), "FREE_SHARDS": "1"}
    job = start(tmp_path, variables=gated)
    until(lambda: len(scored_files(tmp_path)) == 1)
    processes = {name(process): process for process in psutil.Process(job.pid).children(recursive=True)}
    replica = next(process for title, process in processes.items() if "ShardScorer" in title)
    helpers = [process for title, process in processes.items() if title.startswith(("ray::_", "ray::Act", "ray::Led"))]
    assert len(helpers) == 4, sorted(processes)
    until(lambda: all(os.sched_getscheduler(helper.pid) == os.SCHED_IDLE for helper in helpers))
    others = [job, replica, *(process for title, process in processes.items() if "raylet" in title)]
    assert {os.sched_getscheduler(process.pid) for process in others} == {os.SCHED_OTHER}
    assert replica.nice() == psutil.Process(job.pid).nice()
    (tmp_path / "gate" / "open").touch()
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert "rows: 24 read, 24 scored, 0 rejected" in said


def name(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
