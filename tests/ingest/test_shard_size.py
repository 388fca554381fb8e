"""How many rows a shard gets where the user leaves it open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.ingest.shard_size import shard_rows

ROW = 2500


def automatic(size: int, name: str = "a.csv", limit: int | None = None) -> int:
    return shard_rows("auto", [{"path": name, "bytes": size}], limit)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, 64), (40, 64), (16_000, 64), (25_000, 128), (60_000, 256), (200_000, 1024), (10**9, 1024)],
)
def test_small_inputs_have_small_shards(rows: int, expected: int) -> None:
    assert automatic(rows * ROW) == expected


@given(st.integers(0, 10**13))
def test_every_replica_of_a_few_has_many_shards(size: int) -> None:
    rows = automatic(size)
    assert 64 <= rows <= 1024
    assert rows == 64 or size / ROW / rows >= 128


def test_what_is_named_counts() -> None:
    assert shard_rows(7, [{"path": "a.csv", "bytes": 10**9}], None) == 7


def test_a_limit_counts_as_so_many_rows() -> None:
    assert automatic(10**9, limit=30_000) == automatic(30_000 * ROW) == 128


@pytest.mark.parametrize("name", ["a.csv.gz", "A.CSV.GZ", "a.jsonl.zst", "a.parquet"])
def test_compressed_bytes_stand_for_more_text(name: str) -> None:
    assert automatic(ROW * 25_000, name) == automatic(int(ROW * 25_000 * 2.5)) == 256


def test_bytes_of_several_files_add_up() -> None:
    half = {"path": "a.csv", "bytes": ROW * 20_000}
    assert shard_rows("auto", [half, half], None) == 2 * shard_rows("auto", [half], None)
