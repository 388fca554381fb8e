"""Whole files of another form than shards or scores have count as damaged, whoever sealed them."""

from pathlib import Path

import pyarrow as pa
import pytest

from lmsys_ray.data.conversations import SHARD
from lmsys_ray.errors import DamagedError
from lmsys_ray.ingest.resume import Covered
from lmsys_ray.run_directory.layout import RunDirectory

SCORES = pa.table({"row": [0, 1], "a": [0.5, 0.5], "b": [0.25, 0.25], "tie": [0.25, 0.25], "own": ["x", "y"]})


@pytest.mark.parametrize("name", SHARD.names)
def test_a_shard_without_a_column_or_with_another_type_is_damaged(tmp_path: Path, name: str) -> None:
    run, table = RunDirectory(tmp_path), SHARD.empty_table()
    run.write_shard(0, table)
    assert run.read_shard(0, []).num_columns == 0
    run.write_shard(0, table.drop_columns([name]))
    with pytest.raises(DamagedError, match=f"it has no column {name}, or several"):
        run.read_shard(0, [])
    run.write_shard(0, table.set_column(table.column_names.index(name), name, pa.nulls(0)))
    with pytest.raises(DamagedError, match=f"its column {name} is of type null"):
        run.read_shard(0, ["row"])


def test_scores_without_a_column_or_with_another_type_are_damaged(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "manifest.json").touch()
    (tmp_path / "scores" / "m").mkdir(parents=True)
    run.write_scores("m", 0, SCORES)
    assert run.read_scores("m", 0).equals(SCORES)
    for name in ("row", "a", "b", "tie"):
        run.write_scores("m", 0, SCORES.drop_columns([name]))
        with pytest.raises(DamagedError, match=f"it has no column {name}"):
            run.read_scores("m", 0)
    run.write_scores("m", 0, SCORES.append_column("score_a", [[0.5, 0.5]]))
    with pytest.raises(DamagedError, match="it has no column score_b"):
        run.read_scores("m", 0)
    run.write_scores("m", 0, SCORES.append_column("reason", [[1, 2]]))
    with pytest.raises(DamagedError, match="its column reason is of type int64"):
        run.read_scores("m", 0)


@pytest.mark.parametrize("covered", [None, b"", b"[", b"{}", b'{"counts": 3}', b'{"row": "x"}', b'{"start": [0, "x"]}'])
def test_a_shard_that_does_not_say_what_it_covers_is_damaged(covered: bytes | None) -> None:
    metadata = None if covered is None else {b"lmsys_ray.covered": covered}
    if covered == b"{}":  # The defaults are those of nothing covered.
        assert Covered.read_from(SHARD.empty_table().replace_schema_metadata(metadata)) == Covered()
        return
    with pytest.raises(DamagedError, match="a shard does not say what it covers"):
        Covered.read_from(SHARD.empty_table().replace_schema_metadata(metadata))


def test_what_a_shard_covers_comes_back() -> None:
    for covered in (Covered(file="in.csv", row=3), Covered(place=2, row=7, rejects_bytes=12)):
        assert Covered.read_from(covered.attach_to(SHARD.empty_table())) == covered
