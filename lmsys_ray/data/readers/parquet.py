"""Reads Parquet: texts, whole numbers and lists of turns. Measurements: docs/lab/inputs.md."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers.files import check_names
from lmsys_ray.data.readers.records import Records
from lmsys_ray.data.readers.typed import TypedCells, no_utf8
from lmsys_ray.data.turns import is_message
from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.storage.files import arrow_input, path_of

_BATCH_ROWS = 256
_BATCH_BYTES = 8 << 20
"""The most bytes of rows that are read together, by the row group's metadata, and that are yielded together."""
_BUFFER_BYTES = 1 << 20

_ENCRYPTED_MAGIC = b"PARE"
NO_PYTHON = (OverflowError, ValueError, pa.ArrowException)
"""Raised for values that Python cannot hold: a date in the year 200,000, a time zone that is not installed."""

_TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())


def read_parquet(path: str, columns: Sequence[str], at: int, largest_cell: int) -> Iterator[Records]:
    """Yields the records of the row groups from `at` on, a few MB or one row at a time.

    `largest_cell` is checked later, when all texts are known. Raises `UsageError` for a file that is not Parquet or is
    encrypted, or that lacks one of `columns` or has another type there, and `RunError` for a damaged one.
    """

    def asked(found: Sequence[str]) -> list[str]:
        check_names(path, columns, found)
        return list(columns)

    for group, part in batches_of(path, asked, at):
        cells = TypedCells()
        values = [_texts(path, name, part.column(name), cells) for name in columns]
        yield cells.records(group, values, {})


def batches_of(path: str, asked: Callable[[Sequence[str]], list[str]], at: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (row group, some of its rows) from the row group `at` on, with the columns that `asked` chooses.

    Raises `UsageError` for a file that is not Parquet or is encrypted, `RunError` for a damaged one.
    """
    with arrow_input(path_of(path)) as source:
        file = opened(path, source)
        columns = asked(file.schema_arrow.names)
        group, done = at, 0
        try:
            for group in range(at, file.num_row_groups):
                done = 0
                rows = _batch_rows(file.metadata.row_group(group))
                for batch in file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                    for part in _parts(batch):
                        yield group, part
                        done += part.num_rows
        except (pa.ArrowException, OSError) as error:
            if "decrypt" in str(error).lower():
                raise _encrypted(path) from None
            row = done + sum(file.metadata.row_group(before).num_rows for before in range(group))
            raise RunError(f"{path} is damaged after row {row}: {first_line(error)}; fetch it again") from None


def opened(path: str, source: pa.NativeFile) -> pq.ParquetFile:
    """Returns an open Parquet file; raises `UsageError` for one that is none, or is encrypted."""
    try:
        return pq.ParquetFile(source, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError):
        size = source.size()
        source.seek(max(0, size - 4))
        if size and source.read(4) == _ENCRYPTED_MAGIC:
            raise _encrypted(path) from None
        raise UsageError(f"input: {path} is not a Parquet file, or is truncated; fetch it again") from None


def _encrypted(path: str) -> UsageError:
    return UsageError(f"input: {path} is encrypted; write it anew as Parquet without encryption")


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """Returns how many rows of a row group are read at once, at least one."""
    # By the bytes of all columns: asking for those of an encrypted one ends the process.
    return max(1, min(_BATCH_ROWS, group.num_rows * _BATCH_BYTES // max(group.total_byte_size, 1)))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yields a batch in halves until each is small or one row, since rows may have very different sizes."""
    if batch.num_rows > 1 and batch.get_total_buffer_size() > 2 * _BATCH_BYTES and batch.nbytes > 2 * _BATCH_BYTES:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half))
        yield from _parts(batch.slice(half))
    else:
        yield batch


def _texts(path: str, name: str, column: pa.Array, cells: TypedCells) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if kind in _TEXT_TYPES or pa.types.is_null(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_integer(kind):
        return column.cast(pa.large_string())
    if name in CELLS:
        if _may_hold_turns(kind):
            return pa.array([_cell(name, place, value, cells) for place, value in enumerate(column)], pa.large_string())
    elif name != "id":
        return pa.array(map(_extra, column), pa.large_string())
    accepted = "text or whole numbers" if name == "id" else "text or lists of text"
    raise UsageError(f"input: {path} has {kind} in column {name}; accepted: {accepted}")


def _may_hold_turns(kind: pa.DataType) -> bool:
    """Returns whether values of a type are lists, or objects that may be messages."""
    if pa.types.is_struct(kind):
        return is_message([kind.field(place).name for place in range(kind.num_fields)])
    return _is_list(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _cell(name: str, position: int, value: pa.Scalar, cells: TypedCells) -> str | None:
    try:
        return cells.cell(name, position, value.as_py())
    except UnicodeDecodeError as error:  # Arrow does not check texts inside lists
        cells.refuse(name, position, no_utf8(error))
    except NO_PYTHON:
        cells.refuse(name, position, f"has a value of the type {value.type} where text is expected")
    return None


def _extra(value: pa.Scalar) -> str | None:
    try:
        return str(value.as_py()) if value.is_valid else None
    except (UnicodeDecodeError, *NO_PYTHON):
        return None
