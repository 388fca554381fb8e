"""Rows to shards: every distinct id keeps one row, in order; every other row is a reject with its place and reason."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import READ
from lmsys_ray.errors import RunError
from lmsys_ray.ingest import shard_writer
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.ingest.unique_ids import SeenIds
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested


def batches(ids: list[str | None], bad: set[int] = frozenset(), size: int = 3) -> Iterator[tuple[str, pa.Table]]:
    rows = []
    for place, identity in enumerate(ids):
        usable = place not in bad and identity is not None
        cells = dict.fromkeys(CELLS, f"t{place}" if usable else None)
        rows.append({"number": place + 1, "id": identity, **cells, "reason": None if usable else "broken"})
    for start in range(0, len(rows), size):
        yield "in.csv", pa.Table.from_pylist(rows[start : start + size], schema=READ)


def ingested(
    folder: Path, *arguments: object, shard_rows: int = 4, fail: bool = False
) -> tuple[Ingested, RunDirectory]:
    run = RunDirectory(folder)
    return ingest(batches(*arguments), run, shard_rows, fail, on_rows=lambda rows: None), run


def shard_rows(run: RunDirectory, count: int) -> list[list[dict]]:
    return [pq.read_table(run.shard(number)).to_pylist() for number in range(count)]


def rejects(run: RunDirectory) -> list[dict]:
    return [json.loads(line) for line in run.rejects.read_text().splitlines()]


def test_rows_are_numbered_and_cut_into_shards(tmp_path: Path) -> None:
    counts, run = ingested(tmp_path, [str(i) for i in range(10)])
    shards = shard_rows(run, counts.shards)
    assert [len(shard) for shard in shards] == [4, 4, 2]
    assert [row["row"] for shard in shards for row in shard] == list(range(10))
    assert [row["id"] for shard in shards for row in shard] == [str(i) for i in range(10)]
    assert counts == Ingested(rows=10, lines=10, rejects=0, unscored=0, shards=3)
    assert rejects(run) == []


def test_first_row_of_an_id_counts_and_bad_rows_keep_their_line(tmp_path: Path) -> None:
    counts, run = ingested(tmp_path, ["a", "b", "a", None, "c", "b", "d"], {1, 6})
    rows = [row for shard in shard_rows(run, counts.shards) for row in shard]
    assert [(row["id"], row["rejected"], row["prompt"]) for row in rows] == [
        ("a", False, "t0"),
        ("b", True, None),
        ("c", False, "t4"),
        ("d", True, None),
    ]
    assert [(r["row"], r["id"], r["reason"]) for r in rejects(run)] == [
        (2, "b", "broken"),
        (3, "a", "id repeats that of an earlier row"),
        (4, None, "broken"),
        (6, "b", "id repeats that of an earlier row"),
        (7, "d", "broken"),
    ]
    assert {r["file"] for r in rejects(run)} == {"in.csv"}
    assert counts == Ingested(rows=7, lines=4, rejects=5, unscored=2, shards=1)


def test_fail_stops_at_the_first_reject_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"in.csv, row 2 \(id b\): broken"):
        ingested(tmp_path, ["a", "b", "c"], {1, 2}, fail=True)
    assert not (tmp_path / "rejects.jsonl").exists()


def test_huge_texts_make_shards_of_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "_SHARD_BYTES", 50)
    counts, run = ingested(tmp_path, [str(i) for i in range(40)], frozenset(), 1, shard_rows=1000)
    assert counts.shards > 5
    assert [row["row"] for shard in shard_rows(run, counts.shards) for row in shard] == list(range(40))


def test_no_rows_make_no_shards(tmp_path: Path) -> None:
    counts, run = ingested(tmp_path, [])
    assert counts == Ingested()
    assert run.rejects.read_text() == ""


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [*map(str, range(30)), "007", "é", "a", "a\0", *("x" * n for n in (14, 15, 16, 40)), "x" * 15 + "y"]
            ),
            max_size=12,
        )
    )
)
def test_seen_ids_agree_with_a_set(parts: list[list[str]]) -> None:
    seen, known = SeenIds(), set()
    for part in parts:
        expected = [identity not in known and identity not in part[:place] for place, identity in enumerate(part)]
        known.update(part)
        assert seen.first_seen(pa.array(part, pa.string())).tolist() == expected
