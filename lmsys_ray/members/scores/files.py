"""Reads ids and numbers from CSV, JSON Lines and Parquet, in batches."""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.json as arrow_json
import pyarrow.parquet as pq

from lmsys_ray.data.readers.files import file_format, open_bytes
from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import arrow_input, path_of

_BLOCK = 8 << 20
"""Bytes of text that are read at once, more than any line."""
_BATCH_ROWS = 1 << 17

_AS_FLOAT = "write ids as text or as whole numbers (pandas makes floats of whole numbers where a column has gaps)"
_NUMBER = r"\A-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\z"
_NUMERIC = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def column_names(path: str) -> list[str]:
    """Returns the names of a file's columns; of JSON Lines the keys of its first object.

    Raises `UsageError` for another format, `RunError` where its beginning cannot be read.
    """
    with _readable(path):
        return _NAMES[file_format(path)](path)


def read_columns(path: str, names: Sequence[str]) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Yields ids, large_string and empty where there is none, and numbers, float64 [rows, names - 1], NaN for none.

    `names` are columns that the file has, that of the id first. Raises `UsageError` where a column is of another type,
    `RunError` where the file is damaged.
    """
    with _readable(path):
        for batch in _BATCHES[file_format(path)](path, names):
            identity, *numbers = (batch.column(place) for place in range(len(names)))
            values = [_numbers(path, name, column) for name, column in zip(names[1:], numbers, strict=True)]
            yield _ids(path, names[0], identity), np.column_stack(values) if values else np.empty((len(identity), 0))


class _Damaged(OSError):
    """The content of a local file is damaged."""


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        with storage_errors(path_of(path), "read", let_through=_Damaged):
            try:
                yield
            except OSError as error:  # Arrow raises it for damaged Parquet, without a number.
                if error.errno is None and isinstance(path_of(path), Path):
                    raise _Damaged(first_line(error)) from None
                raise
    except (pa.ArrowException, EOFError, UnicodeDecodeError, zlib.error, _Damaged) as error:
        raise RunError(f"{path} cannot be read ({first_line(error, 200)}); mend it or fetch it again") from None
    except UsageError as error:  # of the readers of the input
        raise UsageError(str(error).removeprefix("input: ")) from None


def _csv_names(path: str) -> list[str]:
    with open_bytes(path) as stream:
        return list(_open_csv(stream, arrow_csv.ConvertOptions()).schema.names)


def _csv_batches(path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    # Numbers come as text, so that one that is none does not stop the others.
    options = arrow_csv.ConvertOptions(
        include_columns=list(names), column_types=dict.fromkeys(names, pa.large_string())
    )
    with open_bytes(path) as stream:
        yield from _open_csv(stream, options)


def _open_csv(stream: BinaryIO, options: arrow_csv.ConvertOptions) -> arrow_csv.CSVStreamingReader:
    return arrow_csv.open_csv(
        pa.PythonFile(stream, "r"),
        arrow_csv.ReadOptions(block_size=_BLOCK),
        arrow_csv.ParseOptions(newlines_in_values=True),
        options,
    )


def _json_names(path: str) -> list[str]:
    with open_bytes(path) as stream:
        for line in filter(bytes.strip, stream):
            return list(_object(path, 1, line))
    raise UsageError(f"{path} is empty")


def _json_batches(path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with open_bytes(path) as stream:
        kept, before = b"", 0
        while block := stream.read(_BLOCK):
            lines, feed, kept = (kept + block).rpartition(b"\n")
            if feed:
                yield (batch := _json_batch(path, before, lines, names))
                before += batch.num_rows
        if kept.strip():
            yield _json_batch(path, before, kept, names)


def _json_batch(path: str, before: int, lines: bytes, names: Sequence[str]) -> pa.RecordBatch:
    """Returns the columns of whole lines; by Arrow, and where it refuses them line by line."""
    for kind in (pa.large_string(), pa.int64()):
        schema = pa.schema([(names[0], kind), *((name, pa.float64()) for name in names[1:])])
        options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            read = arrow_json.ReadOptions(block_size=len(lines) + 1)
            table = arrow_json.read_json(pa.BufferReader(lines), read, options)
        except pa.ArrowInvalid:
            continue
        return table.select(list(names)).combine_chunks().to_batches()[0] if table.num_rows else _no_rows(schema)
    return _json_by_line(path, before, lines, names)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _json_by_line(path: str, before: int, lines: bytes, names: Sequence[str]) -> pa.RecordBatch:
    ids, numbers = [], []
    for number, line in enumerate(filter(bytes.strip, lines.split(b"\n")), before + 1):
        record = _object(path, number, line)
        identity = record.get(names[0])
        if isinstance(identity, float | bool | list | dict):
            raise UsageError(f"{path}, row {number} has {names[0]} = {str(identity)[:40]}; {_AS_FLOAT}")
        ids.append(None if identity is None else _without_surrogates(str(identity)))
        numbers.append([_float(record.get(name)) for name in names[1:]])
    columns = np.array(numbers, np.float64).reshape(len(ids), len(names) - 1).T
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.large_string()), *map(pa.array, columns)], list(names))


def _object(path: str, number: int, line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}, row {number} is not valid JSON ({first_line(error, 80)}); mend it") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}, row {number} is no object; each line must be one, with an id and scores")
    return found


def _without_surrogates(text: str) -> str | None:
    """Returns a text; None where it holds lone surrogates, which no id of an input can."""
    return None if any("\ud800" <= letter <= "\udfff" for letter in text) else text


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _parquet_names(path: str) -> list[str]:
    with arrow_input(path_of(path)) as source, pq.ParquetFile(source) as file:
        return list(file.schema_arrow.names)


def _parquet_batches(path: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with arrow_input(path_of(path)) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(names)):
            yield batch.select(list(names))


_NAMES: dict[str, Callable[[str], list[str]]] = {"csv": _csv_names, "jsonl": _json_names, "parquet": _parquet_names}
_BATCHES: dict[str, Callable[[str, Sequence[str]], Iterator[pa.RecordBatch]]] = {
    "csv": _csv_batches,
    "jsonl": _json_batches,
    "parquet": _parquet_batches,
}


def _ids(path: str, name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise UsageError(f"{path} has {column.type} in the column {name}; {_AS_FLOAT}")
    return pc.fill_null(column.cast(pa.large_string()), "")


def _numbers(path: str, name: str, column: pa.Array) -> np.ndarray:
    """Returns a column as float64 [rows], NaN where it holds no number."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        try:
            column = pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            column = pc.utf8_trim_whitespace(column)
            number = pc.match_substring_regex(column, _NUMBER)
            column = pc.if_else(number, column, pa.scalar(None, column.type))
    elif not any(is_kind(column.type) for is_kind in _NUMERIC):
        raise UsageError(f"{path} has {column.type} in the column {name}; accepted: numbers")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _TEXT)
