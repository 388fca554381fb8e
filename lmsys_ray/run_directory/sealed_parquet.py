"""Parquet files with a seal, a SHA-256 of their own bytes, and a label that says what they are.

Both are in the file's metadata, so that a file stays one object that any Parquet reader can read. The digest is taken
with zeros in its place. The label (see `Binding`) tells a whole file of another run or shard from the right one.
"""

import hashlib
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

_MARK = b"sha256:"
_BLANK = b"0" * 64
_SEAL, _LABEL = "seal", "run"


class SealError(ValueError):
    """A file that is not as it was sealed, or has another label; the text says which."""


def to_bytes(table: pa.Table, label: str = "") -> bytes:
    """Returns `table` as a sealed Parquet file with `label`."""
    metadata = table.schema.metadata or {}  # A table that was read from a sealed file still has its seal and label.
    kept = {key: value for key, value in metadata.items() if key.decode() not in (_LABEL, _SEAL)}
    table = table.replace_schema_metadata(kept or None)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", compression_level=1) as writer:
        writer.write_table(table)
        named = {_LABEL: label} if label else {}
        writer.add_key_value_metadata({**named, _SEAL: (_MARK + _BLANK).decode()})
    data = bytearray(sink.getvalue())
    place = _place(data)
    data[place : place + len(_BLANK)] = _digest(data, place)
    return bytes(data)


def from_bytes(
    data: bytes,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    form: Callable[[pa.Schema], str | None] | None = None,
) -> pa.Table:
    """Returns the table in a sealed file, or `columns` of it.

    Raises `SealError` for a damaged file, before it is parsed, for one whose label is not `label` (None accepts any),
    and for one whose schema is not of this `form`.
    """
    _check_seal(data)
    file = pq.ParquetFile(pa.BufferReader(data))
    if label is not None and _label(file) != label:
        raise SealError("it belongs to another run or place")
    if form is not None and (fault := form(file.schema_arrow)):
        raise SealError(fault)
    return file.read(columns=columns)


def label_of(data: bytes) -> str:
    """Returns the label of a sealed file, empty if it has none; raises `SealError` for a damaged file."""
    _check_seal(data)
    return _label(pq.ParquetFile(pa.BufferReader(data)))


def _label(file: pq.ParquetFile) -> str:
    return (file.metadata.metadata or {}).get(_LABEL.encode(), b"").decode()


def _check_seal(data: bytes) -> None:
    place = _place(data)
    if place < len(_MARK):
        raise SealError("its checksum is gone")
    if data[place : place + len(_BLANK)] != _digest(data, place):
        raise SealError("its checksum does not match")


def _place(data: bytes | bytearray) -> int:
    """Returns the position of the digest: after the last mark, since only the writer's name and the length follow."""
    return data.rfind(_MARK) + len(_MARK)


def _digest(data: bytes | bytearray, place: int) -> bytes:
    view = memoryview(data)
    digest = hashlib.sha256(view[:place])
    digest.update(_BLANK)
    digest.update(view[place + len(_BLANK) :])
    return digest.hexdigest().encode()
