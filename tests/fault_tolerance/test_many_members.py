"""Members of one kind share the processes of a pool, and no row is lost or scored twice when these die."""

import time
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import finish, start, submission, write_input, write_settings
from tests.fault_tolerance.test_actors import actors, kill_actors

pytestmark = pytest.mark.slow

NAMES = ("one", "two", "three", "four")


def written(folder: Path) -> int:
    return len(list(folder.glob("run/scores/*/*.parquet")))


def alone(folder: Path, lightgbm: dict, rows: int) -> str:
    """Returns the submission of one member, which a blend with itself repeats."""
    write_input(folder / "in.csv", rows)
    write_settings(folder, {"one": lightgbm})
    code, said = finish(folder)
    assert code == 0, said
    return (folder / "run" / "submission.csv").read_text()


def test_members_of_one_kind_share_their_workers(tmp_path: Path, lightgbm: dict) -> None:
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
    expected = alone(tmp_path / "alone", lightgbm, 64)
    folder = tmp_path / "shared"
    write_input(folder / "in.csv", 64)
    write_settings(folder, dict.fromkeys(NAMES, lightgbm), shard_rows=8)
    process, seen = start(folder), set[int]()
    while process.poll() is None:
        seen |= set(actors(process.pid))
        time.sleep(0.05)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert (folder / "run" / "submission.csv").read_text() == expected
    assert all(f"{name}: 64 rows in " in said for name in NAMES)
    assert len(seen) == 1, "half of two cores is one worker, for all members"


def test_shared_workers_that_are_killed_lose_nothing(tmp_path: Path, lightgbm: dict) -> None:
    rows = 96
    ids = write_input(tmp_path / "in.csv", rows)
    write_settings(tmp_path, dict.fromkeys(NAMES, lightgbm), shard_rows=4, max_deaths=20)
    process = start(tmp_path)
    killed = kill_actors(process, 3, lambda done: written(tmp_path) >= 26 * done + 2)  # within the pass of each member
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert len(killed) == 3
    assert [line[0] for line in submission(tmp_path)] == ids
    assert all(f"{name}: {rows} rows in " in said for name in NAMES), "no shard was scored twice"


@pytest.mark.soak
def test_a_member_that_was_scored_before_is_left_out_of_the_pool(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 32)
    write_settings(tmp_path, {"one": lightgbm, "two": lightgbm}, shard_rows=8)
    assert finish(tmp_path)[0] == 0
    (tmp_path / "run" / "scores" / "one" / "00002.parquet").unlink()
    write_settings(tmp_path, dict.fromkeys(NAMES[:3], lightgbm), shard_rows=8)
    code, said = finish(tmp_path)
    assert code == 0, said
    assert "one: 8 rows in " in said
    assert "two: nothing to score" in said
    assert "three: 32 rows in " in said
