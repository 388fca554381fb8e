"""An interrupted ingest resumes after its last whole shard and makes, to the byte, what an undisturbed one makes."""

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.readers import BEGINNING, ReadPosition, read_rows
from lmsys_ray.errors import RunError
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested

NAMES = ("id", "prompt", "response_a", "response_b")


@dataclass
class LocalRows:
    """Files read in this process, which stop with an error after so many batches."""

    files: list[str]
    batches: int | None = None
    start: ReadPosition = BEGINNING
    rows_read: int = 0

    def resume_at(self, file: str, start: ReadPosition, rows: int) -> "LocalRows":
        self.files, self.start = self.files[self.files.index(file) :], start
        return self

    def __iter__(self) -> Iterator[tuple[str, pa.Table]]:
        for place, file in enumerate(self.files):
            for table in read_rows(file, start=BEGINNING if place else self.start):
                if self.batches is not None:
                    self.batches -= 1
                    if self.batches < 0:
                        raise InterruptedError
                self.rows_read += table.num_rows
                yield file, table


def write_inputs(folder: Path, rows: int) -> list[str]:
    """Files of each format, with repeated ids within and across them, rows without an id and damaged ones."""
    randomly = random.Random(5)
    files = ["a.csv", "b.csv.gz", "c.jsonl", "d.parquet", "a.csv"]
    for name in files[:4]:
        records = [
            dict(zip(NAMES, (f"{randomly.randrange(3 * rows)}", f'["{n} ü"]', "x" * n, "y"), strict=True))
            for n in range(rows)
        ]
        for record in randomly.sample(records, rows // 10):
            record.update(randomly.choice([{"id": ""}, {"prompt": '["open'}]))
        _write(folder / name, records)
    return [str(folder / name) for name in files]


def _write(path: Path, records: list[dict[str, str]]) -> None:
    text = io.StringIO()
    if path.suffix == ".jsonl":
        text.writelines(json.dumps(record) + "\n" for record in records)
    else:
        writer = csv.DictWriter(text, NAMES)
        writer.writeheader()
        for n, record in enumerate(records):
            writer.writerow(record)
            if n % 40 == 17:
                text.write('3,"text"behind a quote,x,y\r\n')
    content = text.getvalue().encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=len(records) // 3)
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def made(run: RunDirectory) -> dict[str, bytes]:
    files = [*(run.path / "shards").iterdir(), run.rejects]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def run_ingest(
    folder: Path, batches: Iterable[tuple[str, pa.Table]], shard_rows: int = 16
) -> tuple[Ingested, RunDirectory]:
    run = RunDirectory(folder)
    run.prepare()
    return ingest(batches, run, shard_rows, fail_on_reject=False, on_rows=lambda rows: None), run


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("csv_blocks", "windows"):
        monkeypatch.setattr(f"lmsys_ray.data.readers.{module}.BLOCK", 1000)
    monkeypatch.setattr("lmsys_ray.data.readers.json_lines._BATCH_ROWS", 10)
    monkeypatch.setattr("lmsys_ray.data.readers.parquet._BATCH_ROWS", 10)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("restartable", [True, False])
def test_interrupted_ingest_ends_as_an_undisturbed_one(tmp_path: Path, restartable: bool) -> None:
    files = write_inputs(tmp_path, 120)
    counts, whole = run_ingest(tmp_path / "whole", LocalRows(files))
    assert counts.shards > 15
    again = tmp_path / "again"
    for batches in range(0, 60, 4):
        rows = LocalRows(files, batches)
        try:
            found, run = run_ingest(again, rows if restartable else iter(rows))
        except InterruptedError:
            continue
        break
    else:
        found, run = run_ingest(again, LocalRows(files))
    assert found == counts
    assert made(run) == made(whole)


@pytest.mark.usefixtures("small_blocks")
def test_interrupted_ingest_warns_as_an_undisturbed_one(tmp_path: Path) -> None:
    cells = [["text" if n % 23 == 19 else '["list"]', "[]", "[null]"] for n in range(400)]
    records = [dict(zip(NAMES, (str(n), *row), strict=True)) for n, row in enumerate(cells)]
    files = [str(tmp_path / name) for name in ("a.csv", "b.jsonl")]
    for file in files:
        _write(Path(file), records)
    counts, whole = run_ingest(tmp_path / "whole", LocalRows(files))
    assert counts.warnings == 2 * 17
    again = tmp_path / "again"
    for batches in range(0, 60, 7):
        with suppress(InterruptedError):
            run_ingest(again, LocalRows(files, batches))
    found, run = run_ingest(again, LocalRows(files))
    assert found == counts
    assert made(run) == made(whole)


@pytest.mark.usefixtures("small_blocks")
def test_restart_reads_no_more_than_what_is_missing(tmp_path: Path) -> None:
    files = write_inputs(tmp_path, 120)
    counts, run = run_ingest(tmp_path / "run", LocalRows(files))
    before = made(run)
    run.shard(counts.shards - 2).unlink()
    rows = LocalRows(files)
    assert run_ingest(tmp_path / "run", rows)[0] == counts
    assert made(run) == before
    assert rows.rows_read < counts.rows / 2


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("damage", ["shard", "rejects"])
def test_damaged_shard_or_lost_rejects_are_made_again(tmp_path: Path, damage: str) -> None:
    files = write_inputs(tmp_path, 60)
    counts, run = run_ingest(tmp_path / "run", LocalRows(files))
    before = made(run)
    if damage == "shard":
        run.shard(3).write_bytes(run.shard(3).read_bytes()[:-20])
    else:
        sorted(run.shards.glob("rejects-*"))[2].unlink()
    assert run_ingest(tmp_path / "run", LocalRows(files))[0] == counts
    assert made(run) == before


def test_run_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    files = write_inputs(tmp_path, 20)
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    run.shard(0).mkdir()
    with pytest.raises(RunError, match=r"00000\.parquet cannot be read \(Is a directory\); mend that and start"):
        ingest(LocalRows(files), run, 4, fail_on_reject=False, on_rows=lambda rows: None)


def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """A process that may write no file of more than 4 KiB meets what a full disk brings."""
    files = write_inputs(tmp_path, 400)
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
    done = subprocess.run(
        [sys.executable, "-c", limited + SCRIPT, tmp_path / "run", *files], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "lmsys_ray.errors.RunError" in last
    assert "cannot be written (File too large); mend that and start the same command again" in last
    assert not [file for file in (tmp_path / "run" / "shards").iterdir() if file.suffix == ".tmp"]


SCRIPT = "import sys; from tests.ingest.test_resume import LocalRows, run_ingest, Path; "
SCRIPT += "run_ingest(Path(sys.argv[1]), LocalRows(sys.argv[2:]), 8)"


@pytest.mark.slow
def test_killed_ingest_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    files = write_inputs(tmp_path, 700)
    counts, whole = run_ingest(tmp_path / "whole", LocalRows(files), 8)
    assert counts.shards > 100
    again, randomly, kills, resumed_at = RunDirectory(tmp_path / "again"), random.Random(), 0, []
    while True:
        there = len(list(again.path.glob("shards/*.parquet")))
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(again.path), *files])
        until = there + randomly.randrange(1, counts.shards // 6)
        while process.poll() is None and len(list(again.path.glob("shards/*.parquet"))) < until:
            time.sleep(0.001)
        time.sleep(randomly.random() * 0.005)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        resumed_at.append(there)
    assert kills >= 5
    assert resumed_at == sorted(resumed_at)
    again.prepare()
    assert made(again) == made(whole)


@pytest.mark.usefixtures("ray_session")
def test_files_read_by_ray_begin_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmsys_ray.cluster.read_files import read_files

    monkeypatch.setattr("lmsys_ray.cluster.read_files._MOST_READS", 2)  # tasks of two files each
    files = write_inputs(tmp_path, 60)[:4]
    name_of_no_utf8 = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 " + os.fsencode(Path(files[1]).name))
    files[1] = str(Path(files[1]).rename(name_of_no_utf8))
    counts, run = run_ingest(tmp_path / "run", read_files(files, "auto", None))
    before = made(run)
    assert before == made(run_ingest(tmp_path / "local", LocalRows(files))[1])
    for number in range(counts.shards // 2, counts.shards):
        run.shard(number).unlink()
    assert run_ingest(tmp_path / "run", read_files(files, "auto", None))[0] == counts
    assert made(run) == before
    limited = list(read_files(files, "auto", 100).resume_at(files[1], BEGINNING, 61))
    assert sum(table.num_rows for _, table in limited) == 39
