"""Clocks that are wrong by half a century when a run begins, or when it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from lmsys_ray.errors import RunError
from lmsys_ray.scoring.settings import Settings
from tests.fault_tolerance.jobs import ROOT, finish, make_lightgbm, scored_files, start, write_input, write_settings
from tests.fault_tolerance.test_power_cut import made
from tests.local_job import make_settings, run_job

SECONDS_BEHIND = 55 * 365 * 86400
CLOCKS = pytest.mark.parametrize(("first", "then"), [("old", "right"), ("right", "old")])


def variables(clock: str) -> dict[str, str]:
    """Returns the environment of a process with a clock."""
    old = [str(Path(__file__).parent / "old_clock")] if clock == "old" else []
    return {"PYTHONPATH": os.pathsep.join([*old, str(ROOT)]), "SECONDS_BEHIND": str(SECONDS_BEHIND)}


@contextmanager
def clock_of_this_process(clock: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if clock == "old":
            now = time.time
            patch.setattr(time, "time", lambda: now() - SECONDS_BEHIND)
        yield


def started(folder: Path, settings: Settings, clock: str) -> subprocess.Popen[bytes]:
    (folder / "run.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "tests.local_job", str(folder / "run.yaml")]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables(clock))


@CLOCKS
def test_a_run_goes_on_under_another_clock(tmp_path: Path, first: str, then: str) -> None:
    whole = make_settings(tmp_path, 400)
    rows = sum(run_job(whole).scored.values())
    settings = whole.model_copy(update={"output": str(tmp_path / "again")})
    process = started(tmp_path, settings, first)
    while process.poll() is None and len(list((tmp_path / "again").glob("scores/*/[0-9]*"))) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    assert process.poll() is None
    year = (tmp_path / "again" / "lock.json").read_text().partition('"since": "')[2][:4]
    assert (year < "1980") == (first == "old")
    with clock_of_this_process(then):
        with pytest.raises(RunError, match=f"is at work for process {process.pid} on .* since {year}"):
            run_job(settings)
        process.kill()
        process.wait()
        assert (tmp_path / "again" / "lock.json").exists()
        report = run_job(settings)
    assert 0 < sum(report.scored.values()) < rows
    assert made(tmp_path / "again") == made(Path(whole.output))
    assert sum(run_job(settings).scored.values()) == 0


@pytest.mark.slow
@pytest.mark.soak
@CLOCKS
def test_a_command_goes_on_under_another_clock(tmp_path: Path, first: str, then: str) -> None:
    member = {"lightgbm": make_lightgbm(tmp_path)}
    write_input(tmp_path / "in.csv", 400, {5: '["unclosed'})
    write_settings(tmp_path, member, shard_rows=2)
    code, said = finish(tmp_path, "--output", "whole")
    assert code == 0, said
    process = start(tmp_path, variables=variables(first))
    while process.poll() is None and len(scored_files(tmp_path)) < 5:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, variables=variables(then))
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert made(tmp_path / "run") == made(tmp_path / "whole")
