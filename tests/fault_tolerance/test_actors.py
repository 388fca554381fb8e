"""Actors that are killed, hang, or meet a row that ends them: no row is lost, and the row is named."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import (
    finish,
    make_llama,
    scored_files,
    start,
    submission,
    write_input,
    write_settings,
)

pytestmark = pytest.mark.slow


def rejects(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "rejects.jsonl").read_text().splitlines()]


def actors(pid: int) -> list[int]:
    """Returns the scoring actors of the job whose driver is `pid`, by the titles that Ray gives its processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
        except (OSError, ValueError):
            continue
        if session == pid and "MapWorker" in title and "ShardScorer" in title:
            found.append(int(folder.name))
    return found


def kill_actors(process: subprocess.Popen[str], count: int, due: Callable[[int], bool]) -> set[int]:
    """Kills `count` actors of a job, the next one when `due`, which is told how many were killed; returns them."""
    killed: set[int] = set()
    while process.poll() is None and len(killed) < count:
        for pid in set(actors(process.pid)) - killed:
            if due(len(killed)):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.02)
    return killed


@pytest.mark.parametrize("step", ["score", pytest.param("encode", marks=pytest.mark.soak)])
def test_row_that_kills_is_found_and_named_and_the_rest_is_scored(tmp_path: Path, lightgbm: dict, step: str) -> None:
    ids = write_input(tmp_path / "in.csv", 48, {21: f"this row KILLS-{step.upper()}"})
    write_settings(tmp_path, {"lightgbm": lightgbm})
    code, said = finish(tmp_path, "--strict", poisoned=True)
    assert code == 3, said
    lines = submission(tmp_path)
    assert [line[0] for line in lines] == ids
    prior = [n for n, line in enumerate(lines) if line[1:] == ["0.349", "0.342", "0.309"]]
    assert prior == [21]
    (reject,) = rejects(tmp_path)
    assert (reject["id"], reject["member"]) == (ids[21], "lightgbm")
    assert reject["reason"] == f"3 processes died or hung at it (members.lightgbm, {step})"
    assert "lightgbm: 7 processes died or hung and were started again" in said
    assert "rows: 48 read, 47 scored, 1 rejected" in said

    code, said = finish(tmp_path)
    assert code == 0, said
    assert "nothing to score" in said
    assert len(rejects(tmp_path)) == 1


def test_row_that_kills_a_replica_while_it_encodes_is_named_and_the_rest_is_scored(tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", 16, {5: "this row KILLS-ENCODE"})
    write_settings(tmp_path, {"llama": make_llama(tmp_path) | {"device": "cpu"}}, max_deaths=1)
    code, said = finish(tmp_path, "--strict", poisoned=True)
    assert code == 3, said
    (reject,) = rejects(tmp_path)
    assert reject["reason"] == "1 process died or hung at it (members.llama, encode)"
    assert "rows: 16 read, 15 scored, 1 rejected" in said


def test_actor_that_hangs_is_ended_and_its_shard_scored(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 32, {3: "this row HANGS-ONCE"})
    write_settings(tmp_path, {"lightgbm": lightgbm}, shard_seconds=4)
    code, said = finish(tmp_path, "--strict", poisoned=True)
    assert code == 0, said
    assert (tmp_path / "hang.flag").exists()
    assert re.search(r"lightgbm: shard 0, rows 0 to 15 .* took more than 4 s, so it was ended", said), said
    assert "rows: 32 read, 32 scored, 0 rejected" in said


def test_actors_killed_from_outside_lose_nothing(tmp_path: Path, lightgbm: dict) -> None:
    rows = 160
    ids = write_input(tmp_path / "in.csv", rows)
    write_settings(tmp_path, {"lightgbm": lightgbm}, shard_rows=2, max_deaths=20)
    process = start(tmp_path)
    killed = kill_actors(process, 4, lambda done: len(scored_files(tmp_path)) >= 10 * done + 1)
    scores = scored_files(tmp_path)[0].parent
    half = scores / ".00079.parquet.deadbeef.tmp"  # as one leaves it that dies while it writes
    half.touch()
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert len(killed) == 4
    assert not [*scores.glob(".*")]
    assert "(raylet)" not in said, "Ray prints lines of its own"
    assert [line[0] for line in submission(tmp_path)] == ids
    assert f"rows: {rows} read, {rows} scored, 0 rejected" in said
    assert f"lightgbm: {rows} rows" in said, "no shard was scored twice"
