"""The driver killed at many moments: the same command ends with the same bytes, and scores no finished shard again."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import finish, make_lightgbm, make_llama, scored_files, start, submission, write_input
from tests.fault_tolerance.jobs import write_settings as write

ROWS, SHARD_ROWS = 256, 2


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("models")
    return {"llama": make_llama(folder), "lightgbm": make_lightgbm(folder)}


def seen(folder: Path, pattern: str, count: int = 1) -> Callable[[], bool]:
    """Returns a condition: `count` files of `pattern` lie in the run directory."""
    return lambda: sum(1 for _ in (folder / "run").glob(pattern)) >= count


def further_scores(folder: Path, count: int) -> Callable[[], bool]:
    before = len(scored_files(folder))
    return lambda: len(scored_files(folder)) >= before + count


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool], delay: float) -> bool:
    """Kills the driver `delay` seconds after `condition` holds; returns whether it was still at work then."""
    while process.poll() is None and not condition():
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("every", "least"), [pytest.param(1, 20, marks=pytest.mark.soak), (12, 2)])
def test_killed_at_any_moment_the_same_command_writes_the_same_file(
    tmp_path: Path, members: dict, every: int, least: int
) -> None:
    """Kills at each `every`th of 25 moments, some of which may come after the end; `least` kills must be in time."""
    chance = random.Random(0)
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
        ids = write_input(folder / "in.csv", ROWS, {5: '["unclosed'})
        write(folder, members, shard_rows=SHARD_ROWS)
    code, said = finish(folders["whole"])
    assert code == 0, said
    expected = (folders["whole"] / "run" / "submission.csv").read_bytes()

    folder = folders["killed"]
    moments: list[Callable[[], Callable[[], bool]]] = [
        lambda: seen(folder, "lock.json"),
        lambda: seen(folder, "manifest.json"),
        lambda: seen(folder, "manifest.json"),
        *[lambda count=count: seen(folder, "shards/*.parquet", count) for count in (1, 40, 90, 128)],
        lambda: seen(folder, "scores/*", 2),
        *[lambda: further_scores(folder, chance.randint(1, 8)) for _ in range(10)],
        lambda: lambda: len(scored_files(folder)) >= 2 * ROWS // SHARD_ROWS,
        *[lambda: seen(folder, ".submission.csv.*.tmp") for _ in range(6)],
    ]
    files: dict[Path, int] = {}
    kills = 0
    for moment in moments[::every]:
        process = start(folder)
        kills += kill_when(process, moment(), chance.choice([0, 0.01, 0.1, 0.5]))
        now = {path: path.stat().st_mtime_ns for path in scored_files(folder)}
        assert files.items() <= now.items(), "a shard that was finished was scored again"
        files = now
    assert kills >= least
    code, said = finish(folder)
    assert code == 0, said
    assert (folder / "run" / "submission.csv").read_bytes() == expected
    assert (folder / "run" / "rejects.jsonl").read_text().count("\n") == 1
    assert [line[0] for line in submission(folder)] == ids
    assert not list((folder / "run").rglob(".*.tmp"))
    print(f"{kills} kills of the driver, {len(files)} shards scored before the last start")
