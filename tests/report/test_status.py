"""How far a run is, told from its directory: running, stopped, died, done."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lmsys_ray.durations import duration
from lmsys_ray.errors import UsageError
from lmsys_ray.processes import Process
from lmsys_ray.report.status import read_status
from lmsys_ray.report.status_lines import lines
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import Holder
from tests.local_job import make_settings, run_job

JOB = Path(__file__).parents[2] / "jobs" / "status.py"


class Killed(BaseException):
    pass


def killed_after(shards: int):
    seen = []

    def die(place: str) -> None:
        seen.append(place)
        if seen.count("scored") == shards:
            raise Killed

    return die


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_settings(tmp_path).output)


def stop_early(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_job(make_settings(tmp_path, rows=40), killed_after(3))


def hold(run: RunDirectory, process: Process, beat: float) -> None:
    run.replace_lock(Holder(process, "2026-01-01 00:00:00 UTC", "token", beat).text())


def test_a_finished_run(tmp_path: Path, run: RunDirectory) -> None:
    run_job(make_settings(tmp_path, rows=40))
    status = read_status(run, time.time())
    assert (status.state, status.shards, status.ingested, status.rows, status.rejects) == ("done", 5, True, 40, 1)
    assert {name: member.scored for name, member in status.members.items()} == {"judge": 5, "other": 5}
    assert lines(status)[:3] == [
        f"{run.path}: done",
        "ingest: done, 40 rows in 5 shards, 1 rejected",
        "judge: 5 of 5 shards (100% of the bytes)",
    ]
    assert status.submission in lines(status)[-1]
    assert lines(replace(status, rows=1, shards=1))[1] == "ingest: done, 1 row in 1 shard, 1 rejected"


def test_what_ended_a_run_and_what_to_do(tmp_path: Path, run: RunDirectory) -> None:
    stop_early(tmp_path)
    status = read_status(run, time.time())
    assert status.state == "failed"
    assert "Killed" in status.about
    assert sum(member.scored for member in status.members.values()) == 3
    assert status.submission is None
    manifest = run.read_manifest()
    assert manifest
    for exit_code, state in ((130, "stopped"), (None, "died"), (2, "failed")):
        manifest.starts[-1]["exit"] = exit_code
        run.write_manifest(manifest)
        status = read_status(run, time.time())
        assert status.state == state
        assert "start the same command again" in lines(status)[0]


def test_who_is_at_work(tmp_path: Path, run: RunDirectory) -> None:
    stop_early(tmp_path)
    here, now = Process.current(), 1_000_000.0
    hold(run, here, now - 1000)
    assert read_status(run, now).state == "running"
    hold(run, replace(here, started="1"), now)
    assert read_status(run, now).state == "died"
    for silence, state in ((5, "running"), (300, "silent")):
        hold(run, replace(here, host="elsewhere"), now - silence)
        status = read_status(run, now)
        assert status.state == state
        assert (
            f"process {here.pid} on elsewhere since 2026-01-01 00:00:00 UTC, last sign of life {silence} s ago"
            in (lines(status)[0])
        )


def test_time_left_is_by_the_bytes_of_shards(tmp_path: Path, run: RunDirectory) -> None:
    stop_early(tmp_path)
    now = time.time()
    hold(run, Process.current(), now)
    done = sorted(run.score("judge", 0).parent.iterdir())
    for place, file in enumerate(done):
        os.utime(file, (now - 30 + 10 * place,) * 2)
    sizes = {file.name: file.stat().st_size for file in run.shards.glob("*.parquet")}
    manifest = run.read_manifest()
    assert manifest
    manifest.starts[-1]["began"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 100))
    run.write_manifest(manifest)
    judge = read_status(run, now).members["judge"]
    assert judge.scored == 3
    new = sum(sizes[file.name] for file in done[1:])
    assert judge.seconds_left == pytest.approx((sum(sizes.values()) - new - sizes[done[0].name]) / new * 30)
    assert read_status(run, now).members["other"].seconds_left is None


def test_members_of_weight_0_are_not_waited_for(tmp_path: Path, run: RunDirectory) -> None:
    settings = make_settings(tmp_path)
    members = {"judge": settings.members["judge"], "other": settings.members["other"].model_copy(update={"weight": 0})}
    run_job(settings.model_copy(update={"members": members}))
    assert list(read_status(run, time.time()).members) == ["judge"]


DURATIONS = {0.2: "0 s", 59: "59 s", 60: "1 min", 61: "1 min 1 s", 7200: "2 h", 12_000: "3 h 20 min", 90_000: "1 d 1 h"}


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command(tmp_path: Path, run: RunDirectory) -> None:
    run_job(make_settings(tmp_path))
    told = subprocess.run([sys.executable, JOB, str(run.path), "--json"], capture_output=True, check=True).stdout
    assert json.loads(told)["state"] == "done"
    refused = subprocess.run([sys.executable, JOB, str(tmp_path)], capture_output=True, check=False)
    assert refused.returncode == 2
    assert b"is not a run directory" in refused.stderr
    with pytest.raises(UsageError, match="is not a run directory"):
        read_status(RunDirectory(tmp_path / "nowhere"), 0.0)


@pytest.mark.slow
def test_a_hundred_thousand_shards_take_seconds(tmp_path: Path, run: RunDirectory) -> None:
    run_job(make_settings(tmp_path))
    content = b"x" * 100
    for folder in (run.shards, run.score("judge", 0).parent):
        for number in range(5, 100_000):
            (folder / f"{number:05d}.parquet").write_bytes(content)
    began = time.process_time()
    status = read_status(run, time.time())
    assert time.process_time() - began < 5  # about a second
    assert status.shards == status.members["judge"].scored == 100_000
