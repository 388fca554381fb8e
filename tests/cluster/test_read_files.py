"""Files read by tasks on the cluster: the run is the same as where one process reads them."""

from pathlib import Path

import pytest

from lmsys_ray.data.readers import parts
from lmsys_ray.run_directory.layout import RunDirectory
from tests.ingest.test_resume import LocalRows, made, run_ingest, write_inputs


@pytest.mark.usefixtures("ray_session")
def test_parts_of_large_files_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmsys_ray.cluster.read_files import read_files

    files = write_inputs(tmp_path, 4500)
    reader = read_files(files, "auto", None)
    assert len(reader._tasks()) == len(files)
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    assert len(reader._tasks()) > len(files) + 5
    counts, whole = run_ingest(tmp_path / "whole", LocalRows(files), 500)
    assert counts.rejects > 1000
    found, run = run_ingest(tmp_path / "run", reader, 500)
    assert (found, made(run)) == (counts, made(whole))
    _remove_from(run, counts.shards // 2)
    assert run_ingest(tmp_path / "run", read_files(files, "auto", None), 500)[0] == counts
    assert made(run) == made(whole)
    limited = [table.num_rows for _, table in read_files(files[2:3], "auto", 2500)]
    assert sum(limited) == 2500


def test_small_files_are_read_several_by_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmsys_ray.cluster import read_files

    monkeypatch.setattr(read_files, "_MOST_READS", 4)
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    files = [str(tmp_path / f"{number}.jsonl") for number in range(10)]
    for number, file in enumerate(files):
        size = 100_000 if number == 5 else 3
        Path(file).write_text('{"id": 1, "prompt": "p", "response_a": "a", "response_b": "b"}\n' * size)
    tasks = [[item["number"] for item in task["items"]] for task in read_files.read_files(files, "auto", None)._tasks()]
    assert tasks == [[0, 1, 2], [3, 4], *[[5]] * 98, [6, 7, 8], [9]]


def _remove_from(run: RunDirectory, first: int) -> None:
    for shard in run.shards.glob("*.parquet"):
        if int(shard.stem) >= first:
            shard.unlink()
