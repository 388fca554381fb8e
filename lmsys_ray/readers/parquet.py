"""Parquet: texts, whole numbers and lists of turns."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.conversations import CELLS
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.readers.files import missing_columns
from lmsys_ray.readers.json_lines import cell_text
from lmsys_ray.readers.records import Records
from lmsys_ray.storage import arrow_input, path_of

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
                    yield Records(group, [_values(path, name, batch.column(name)) for name in columns])
                    done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            row = done + sum(file.metadata.row_group(before).num_rows for before in range(group))
            raise RunError(f"{path} is damaged after row {row}: {str(error).splitlines()[0]}; fetch it again") from None


def _values(path: str, name: str, column: pa.Array) -> pa.Array:
    """Returns a column as texts; lists of turns become JSON text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if kind in _TEXT_TYPES or pa.types.is_null(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_integer(kind):
        return column.cast(pa.large_string())
    if name not in ("id", *CELLS) and (pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.large_string())
    if name != "id" and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return pa.array([cell_text(value) for value in column.to_pylist()], pa.large_string())
    accepted = "text or whole numbers" if name == "id" else "text or lists of text"
    raise UsageError(f"input: {path} has {kind} in column {name}; accepted: {accepted}")
