"""Text compressed with zstd is read like plain text, from any place; damage is one sentence."""

from pathlib import Path

import pytest

from lmsys_ray.data.readers import ReadPosition, check_columns, read_rows
from lmsys_ray.errors import RunError, UsageError
from tests.data.test_standard_input import zstd

HEADER = b"id,prompt,response_a,response_b\n"
PLAIN = HEADER + b"".join(b"%d,%d,b,c\n" % (n, n * n) for n in range(300_000))


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_it_is_read_from_any_place(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.csv", PLAIN)
    packed = written(tmp_path / "a.csv.zst", zstd(PLAIN[:1000]) + zstd(PLAIN[1000:]))
    tables = list(read_rows(plain))
    assert list(read_rows(packed)) == tables
    starts = {(table["start_at"][0].as_py(), table["start_row"][0].as_py()) for table in tables}
    assert len(starts) > 2
    for start in starts:
        position = ReadPosition(*start)
        assert list(read_rows(packed, start=position)) == list(read_rows(plain, start=position))


def test_damage_and_other_content_are_one_sentence(tmp_path: Path) -> None:
    whole = zstd(PLAIN)
    with pytest.raises(RunError, match="its zstd stream is broken or truncated"):
        list(read_rows(written(tmp_path / "a.csv.zst", whole[: len(whole) // 2])))
    with pytest.raises(UsageError, match=r"is not compressed with zstd; rename it without \.zst"):
        check_columns(written(tmp_path / "b.csv.zst", HEADER))
    with pytest.raises(UsageError, match=r"is compressed with zstd by its content; rename it to end in \.zst"):
        check_columns(written(tmp_path / "c.csv", whole))
