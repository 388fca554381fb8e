"""Parquet: texts, whole numbers and lists of turns."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.conversations import CELLS
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.readers.files import missing_columns
from lmsys_ray.readers.records import Records
from lmsys_ray.readers.typed import TypedCells, no_utf8
from lmsys_ray.storage import arrow_input, path_of
from lmsys_ray.turns import is_message

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20

_TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())


def read_parquet(path: str, columns: Sequence[str], at: int) -> Iterator[Records]:
    """Yields the records of the row groups from `at` on.

    Raises `UsageError` for a file that is not Parquet, lacks one of `columns` or has another type there, `RunError` for
    a damaged one.
    """
    with arrow_input(path_of(path)) as source:
        try:
            file = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES)
        except pa.ArrowInvalid:
            raise UsageError(f"input: {path} is no Parquet file, or it is cut short; fetch it again") from None
        if set(columns) - set(file.schema_arrow.names):
            raise missing_columns(path, columns, file.schema_arrow.names)
        group, done = at, 0
        try:
            for group in range(at, file.num_row_groups):
                done = 0
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns)):
                    cells = TypedCells()
                    values = [_values(path, name, batch.column(name), cells) for name in columns]
                    yield cells.records(group, values, {})
                    done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            row = done + sum(file.metadata.row_group(before).num_rows for before in range(group))
            raise RunError(f"{path} is damaged after row {row}: {str(error).splitlines()[0]}; fetch it again") from None


def _values(path: str, name: str, column: pa.Array, cells: TypedCells) -> pa.Array:
    """Returns a column as texts; lists of turns become JSON text."""
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
    elif name != "id" and (pa.types.is_floating(kind) or pa.types.is_boolean(kind) or _is_list(kind)):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.large_string())
    accepted = "text or whole numbers" if name == "id" else "text or lists of text"
    raise UsageError(f"input: {path} has {kind} in column {name}; accepted: {accepted}")


def _may_hold_turns(kind: pa.DataType) -> bool:
    """Whether values of a type are lists, or such objects as may be messages."""
    if pa.types.is_struct(kind):
        return is_message([kind.field(place).name for place in range(kind.num_fields)])
    return _is_list(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _cell(name: str, position: int, value: pa.Scalar, cells: TypedCells) -> str | None:
    try:
        return cells.cell(name, position, value.as_py())
    except UnicodeDecodeError as error:  # Arrow takes texts within lists as they are
        cells.refuse(name, position, no_utf8(error))
        return None
