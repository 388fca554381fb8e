"""Input in object storage: the same rows, shards and rejects as from local files, from any place on."""

from pathlib import Path

import pytest

from lmsys_ray.data.readers import ReadPosition, check_columns, expand_inputs, read_rows
from lmsys_ray.errors import UsageError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage.files import names, path_of, read_bytes, remove
from tests.ingest.test_resume import LocalRows, run_ingest, small_blocks, write_inputs
from tests.storage.conftest import Bucket

__all__ = ["small_blocks"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path, 120)[:4]


def stored(bucket: Bucket, files: list[str]) -> list[str]:
    return [bucket.put(f"in/{Path(file).name}", Path(file).read_bytes()) for file in files]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("place", range(4))
def test_rows_are_those_of_the_local_file_from_any_start_on(files: list[str], bucket: Bucket, place: int) -> None:
    local, url = files[place], stored(bucket, files)[place]
    check_columns(url)
    expected = list(read_rows(local))
    assert [table.to_pylist() for table in read_rows(url)] == [table.to_pylist() for table in expected]
    rows = [row for table in expected for row in table.to_pylist()]
    for first in (table.to_pylist()[0] for table in expected[1::3]):
        start = ReadPosition(first["start_at"], first["start_row"])
        found = [row for table in read_rows(url, start=start) for row in table.to_pylist()]
        assert found == rows[start.row - 1 :]


def test_globs_of_urls_are_expanded_in_order(files: list[str], bucket: Bucket) -> None:
    urls = stored(bucket, files)
    bucket.put("in/deeper/e.csv", b"id,prompt,response_a,response_b\n")
    assert expand_inputs([f"{bucket.url}/in/*.csv", f"{bucket.url}/in/[cd].*"]) == [urls[0], urls[2], urls[3]]
    assert expand_inputs([f"{bucket.url}/**/*.csv"]) == [urls[0], f"{bucket.url}/in/deeper/e.csv"]
    assert expand_inputs([f"{bucket.url}/in"]) == [*urls, f"{bucket.url}/in/deeper/e.csv"]
    for name, sentence in {
        f"{bucket.url}/none.csv": "does not exist; give a path or a glob",
        f"{bucket.url}/none/*": "does not exist; give a path or a glob",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            expand_inputs([name])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.csv", b"", r"s3://.*/x\.csv is empty; its first line"),
        ("x.csv", b"\x1f\x8b\x08\x00", r"x\.csv is compressed with gzip; rename it"),
        ("x.parquet", b"no Parquet", r"x\.parquet is not a Parquet file, or is truncated"),
    ],
)
def test_unusable_files_are_named_by_their_url(bucket: Bucket, name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_columns(bucket.put(name, content))


def tables(found: set[str]) -> list[str]:
    return sorted(name for name in found if name.endswith(".parquet"))


@pytest.mark.usefixtures("small_blocks")
def test_interrupted_ingest_into_storage_ends_as_an_undisturbed_local_one(
    files: list[str], bucket: Bucket, tmp_path: Path
) -> None:
    urls = stored(bucket, files)
    counts, local = run_ingest(tmp_path / "run", LocalRows(files))
    run = RunDirectory(f"{bucket.url}/run")
    for batches in (12, 6):
        with pytest.raises(InterruptedError):
            run_ingest(run.path, LocalRows(urls, batches))
    remove(run.path / "shards" / tables(names(run.shards))[-2])
    assert run_ingest(run.path, LocalRows(urls))[0] == counts
    assert tables(names(run.shards)) == tables(names(local.shards))
    assert read_bytes(run.rejects).decode().replace(f"{bucket.url}/in", str(tmp_path)) == local.rejects.read_text()
    assert not names(path_of(f"{bucket.url}/run/scores"))
