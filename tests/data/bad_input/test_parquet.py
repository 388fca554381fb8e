"""Parquet files of large rows, of types that nobody expects, encrypted ones, and columns that stand there twice."""

import base64
import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from lmsys_ray.data.readers import LARGEST_CELL, check_columns, read_rows
from lmsys_ray.data.readers.parquet import read_parquet
from lmsys_ray.errors import UsageError

COLUMNS = ("id", "prompt", "response_a", "response_b")


def write(path: Path, rows: int = 2, groups: int | None = None, **columns: Any) -> Path:
    values = {"id": list(range(rows)), **dict.fromkeys(COLUMNS[1:], ["t"] * rows), **columns}
    pq.write_table(pa.table(values), path, row_group_size=groups, use_dictionary=False, write_batch_size=4)
    return path


def test_what_is_yielded_is_bounded_by_bytes(tmp_path: Path) -> None:
    sizes = [4 << 20] * 50 + [10] * 300
    path = write(tmp_path / "a.parquet", len(sizes), prompt=[f"{n:05d}" + "x" * size for n, size in enumerate(sizes)])
    before = pa.total_allocated_bytes()
    batches = []
    for batch in read_parquet(str(path), COLUMNS, 0, LARGEST_CELL):
        texts = batch.columns[1]
        assert len(texts) == 1 or texts.nbytes <= 16 << 20
        assert pa.total_allocated_bytes() - before < 160 << 20
        batches += [text[:5] for text in texts.to_pylist()]
        del texts, batch
    assert batches == [f"{n:05d}".encode() for n in range(len(sizes))]


ODD = {
    "bytes": pa.array([[b"a"], [b"\xff"]]),
    "nanoseconds": pa.array([[1], [2**62]], pa.list_(pa.timestamp("ns"))),
    "years that Python has not": pa.array([[2**30], [2]], pa.list_(pa.date32())),
    "microseconds beyond its last year": pa.array([[2**62], [2]], pa.list_(pa.timestamp("us"))),
    "a zone that is not installed": pa.array([[1], [2]], pa.list_(pa.timestamp("us", "Europe/Nowhere"))),
    "durations": pa.array([[2**62], [2]], pa.list_(pa.duration("s"))),
    "decimals": pa.array([[decimal.Decimal("1.5")], [None]]),
    "times": pa.array([[datetime.time(1)], []]),
    "structs of bytes": pa.array([[{"role": b"\xff", "content": b"\xff"}], [{"role": b"user", "content": b"a"}]]),
    "maps": pa.array([[[("role", "user")]], []], pa.list_(pa.map_(pa.string(), pa.string()))),
}


@pytest.mark.parametrize("kind", ODD)
def test_lists_of_any_type_are_turns_or_rejects(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.parquet", prompt=ODD[kind], further=ODD[kind])
    rows = [row for table in read_rows(str(path), extra=["further"]) for row in table.to_pylist()]
    assert [row["id"] for row in rows] == ["0", "1"]
    assert any(row["reason"] and row["reason"].startswith("prompt ") for row in rows)
    with pytest.raises(UsageError, match="in column id; accepted: text or whole numbers"):
        check_columns(str(write(tmp_path / "b.parquet", id=ODD[kind])))


class _Keys(pe.KmsClient):
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("plain_footer", [False, True])
def test_an_encrypted_file_is_named(tmp_path: Path, plain_footer: bool) -> None:
    table = pa.table({name: ["1"] for name in COLUMNS})
    config = pe.EncryptionConfiguration("f", column_keys={"c": list(COLUMNS)}, plaintext_footer=plain_footer)
    keys = pe.CryptoFactory(lambda _: _Keys()).file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    with pytest.raises(UsageError, match="is encrypted; write it anew as Parquet without encryption"):
        check_columns(str(tmp_path / "a.parquet"))


def test_a_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    table = pa.table([["1"]] * 5, names=[*COLUMNS, "prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,prompt,response_a,response_b,prompt\n1,a,b,c,d\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(UsageError, match="has more than one column prompt; rename or drop all but one"):
            check_columns(str(tmp_path / name))
