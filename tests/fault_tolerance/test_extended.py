"""A limited run goes on to all rows, killed at many moments: the same bytes, and the scores of a fresh run."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fault_tolerance.jobs import finish, make_lightgbm, make_llama, scored_files, start, submission, write_input
from tests.fault_tolerance.jobs import write_settings as write
from tests.fault_tolerance.test_driver import further_scores, kill_when, seen

ROWS, FIRST, SHARD_ROWS = 80, 21, 2


def scores(folder: Path, member: str) -> np.ndarray:
    parts = [pq.read_table(path) for path in sorted((folder / "run" / "scores" / member).glob("*.parquet"))]
    table = pa.concat_tables(parts, promote_options="permissive").sort_by("row")
    return np.column_stack([table[name] for name in ("row", "a", "b", "tie")])


def dated(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in scored_files(folder)}


@pytest.mark.slow
def test_killed_while_it_is_extended_it_writes_the_same_file(tmp_path: Path) -> None:
    chance = random.Random(0)
    members = {"llama": make_llama(tmp_path), "lightgbm": make_lightgbm(tmp_path)}
    ids = write_input(tmp_path / "in.csv", ROWS, {5: '["unclosed', 50: '["unclosed'})
    folders = {name: tmp_path / name for name in ("whole", "extended", "killed")}
    for folder in folders.values():
        folder.mkdir()
        write(folder, members, input=str(tmp_path / "in.csv"), shard_rows=SHARD_ROWS)
    for name, limits in {"whole": [], "extended": ["--limit", str(FIRST)]}.items():
        code, said = finish(folders[name], *limits)
        assert code == 0, said
    shutil.copytree(folders["extended"] / "run", folders["killed"] / "run")
    before = dated(folders["extended"])
    code, said = finish(folders["extended"])
    assert code == 0, said
    assert f"held the first {FIRST} rows; going on to all" in said
    assert dated(folders["extended"]).items() >= before.items()

    folder = folders["killed"]
    moments: list[Callable[[], Callable[[], bool]]] = [
        lambda: seen(folder, "shards/spans.json"),
        lambda: further_scores(folder, 5),
    ]
    files, kills = dated(folder), 0
    for moment in moments:
        kills += kill_when(start(folder), moment(), chance.choice([0, 0.01, 0.1]))
        now = dated(folder)
        assert files.items() <= now.items(), "a shard that was finished was scored again"
        files = now
    assert kills
    code, said = finish(folder)
    assert code == 0, said
    for name in ("submission.csv", "rejects.jsonl"):
        assert (folder / "run" / name).read_bytes() == (folders["extended"] / "run" / name).read_bytes()
    assert [line[0] for line in submission(folder)] == ids
    assert (scores(folder, "lightgbm") == scores(folders["whole"], "lightgbm")).all()
    np.testing.assert_allclose(scores(folder, "llama"), scores(folders["whole"], "llama"), atol=1e-5)
