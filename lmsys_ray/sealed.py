"""Parquet files that carry a SHA-256 of their own bytes, so that a damaged one is recognised wherever it is read.

The digest lies in the file's own metadata and is taken over the file with zeros in its place: a file is one object with
one name, which a rename or an upload replaces as a whole, and any Parquet reader can read it.
"""

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

_MARK = b"sha256:"
_BLANK = b"0" * 64


class DamageError(ValueError):
    """Bytes that are not the ones that were sealed; the text says how that shows."""


def to_bytes(table: pa.Table) -> bytes:
    """Returns `table` as a sealed Parquet file."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", compression_level=1) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"seal": (_MARK + _BLANK).decode()})
    data = bytearray(sink.getvalue())
    place = _place(data)
    data[place : place + len(_BLANK)] = _digest(data, place)
    return bytes(data)


def from_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the table of a sealed file, or `columns` of it; raises `DamageError` before it is parsed."""
    place = _place(data)
    if place < len(_MARK):
        raise DamageError("its checksum is gone")
    if data[place : place + len(_BLANK)] != _digest(data, place):
        raise DamageError("its checksum does not match")
    return pq.read_table(pa.BufferReader(data), columns=columns)


def _place(data: bytes | bytearray) -> int:
    """Returns where the digest lies: behind the last mark, since only the writer's name and the length follow it."""
    return data.rfind(_MARK) + len(_MARK)


def _digest(data: bytes | bytearray, place: int) -> bytes:
    view = memoryview(data)
    digest = hashlib.sha256(view[:place])
    digest.update(_BLANK)
    digest.update(view[place + len(_BLANK) :])
    return digest.hexdigest().encode()
