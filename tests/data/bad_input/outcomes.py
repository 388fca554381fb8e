"""What became of each input row: the corpus says what is expected, an ingest says what happened."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.data.readers import read_rows
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested

REPEATED = "id repeats that of an earlier row"
NO_ID = "id is missing or neither text nor a whole number"


class Row(NamedTuple):
    """One input row: the id that could be read, and the reason why it cannot be scored, None where it can."""

    id: str | None
    reason: str | None = None


def ingested(folder: Path, files: Iterable[Path], form: CellForm = "auto") -> tuple[Ingested, RunDirectory]:
    run = RunDirectory(folder / "run")
    run.prepare()
    files = list(files)
    batches = ((str(file), table) for file in files for table in read_rows(str(file), form))
    shard_rows = 3 if sum(file.stat().st_size for file in files) < 10_000 else 1000
    return ingest(batches, run, shard_rows, fail_on_reject=False, on_rows=lambda rows: None), run


def assert_accounted(folder: Path, files: list[Path], expected: list[list[Row]], form: CellForm = "auto") -> None:
    """Asserts that every row of each file became exactly what is expected: a line to score, a reject, or both."""
    counts, run = ingested(folder, files, form)
    rejects = [json.loads(line) for line in run.rejects.read_text().splitlines()]
    assert [(r["file"], r["row"], r["id"], r["reason"]) for r in rejects] == [
        (str(file), number, row.id, row.reason)
        for file, rows in zip(files, expected, strict=True)
        for number, row in enumerate(rows, 1)
        if row.reason
    ]
    all_rows = [row for rows in expected for row in rows]
    first = {row.id: row for row in reversed(all_rows) if row.id is not None}
    lines = [row for row in all_rows if row.id is not None and row.reason != REPEATED]
    shards = [row for n in range(counts.shards) for row in pq.read_table(run.shard(n)).to_pylist()]
    assert [row["id"] for row in shards] == [row.id for row in lines]
    assert [row["rejected"] for row in shards] == [first[row.id].reason is not None for row in lines]
    assert [row["row"] for row in shards] == list(range(len(lines)))
    assert all((row[name] is None) == row["rejected"] for row in shards for name in CELLS)
    assert counts.rows == len(all_rows)
    assert (counts.lines, counts.rejects) == (len(lines), len(rejects))
    assert counts.unscored == sum(row.reason is not None for row in lines)
