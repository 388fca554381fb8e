"""Reads records of any format with the values that their file types, for schemas that look at each record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers.csv_blocks import csv_header, read_csv
from lmsys_ray.data.readers.files import file_format, open_bytes
from lmsys_ray.data.readers.json_array import begins_array, read_json_array
from lmsys_ray.data.readers.json_lines import (
    BYTE_ORDER_MARK,
    FIRST_ID,
    LARGEST_CELLS,
    KeysTwice,
    check_first_line,
    lines_of,
    object_in,
)
from lmsys_ray.data.readers.parquet import NO_PYTHON, batches_of, opened
from lmsys_ray.data.readers.partitions import partition_values
from lmsys_ray.data.readers.records import LARGEST_CELL
from lmsys_ray.data.readers.typed import no_utf8
from lmsys_ray.data.readers.windows import Window
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.data.schemas.row import RawRecords, Record, Refused
from lmsys_ray.storage.files import arrow_input, path_of

_BATCH_ROWS = 512
_BATCH_BYTES = 2 << 20

Asked = Callable[[Sequence[str]], list[str]]
"""Returns which of a file's columns are read."""


def read_raw(path: str, asked: Asked, at: int, largest_cell: int) -> Iterator[RawRecords]:
    """Yields the records from `at` on (see `ReadPosition`), with the columns that `asked` chooses of the file's.

    Raises as the readers of each format do.
    """
    readers = {"csv": _csv, "jsonl": _json, "parquet": _parquet}
    found = readers[file_format(path)](path, asked, at, largest_cell)
    values = partition_values(path)
    return _with_values(found, {name: values[name] for name in asked(list(values))}) if values else found


def _with_values(found: Iterator[RawRecords], values: Record) -> Iterator[RawRecords]:
    """Yields records with the `values` of columns that they lack."""
    for raw in found:
        records = [record if isinstance(record, Refused) else {**values, **record} for record in raw.records]
        yield raw._replace(records=records)


def is_array(path: str) -> bool:
    """Returns whether a file is JSON and holds an array."""
    if file_format(path) != "jsonl":
        return False
    with open_bytes(path) as stream:
        return begins_array(stream)


def is_direct(path: str, reading: Reading) -> bool:
    """Returns whether the columns of a file are those of shards, so that its records need not be looked at."""
    return reading.is_direct and not {"id", *CELLS} & partition_values(path).keys() and not is_array(path)


def columns_of(path: str) -> list[str]:
    """Returns the columns of a file (`own_columns`), and those that its folders name."""
    own = own_columns(path)
    return [*own, *(name for name in partition_values(path) if name not in own)]


def own_columns(path: str) -> list[str]:
    """Returns the columns of a CSV or Parquet file; those of the first objects where it is JSON."""
    kind = file_format(path)
    if kind == "csv":
        with open_bytes(path) as stream:
            return csv_header(f"input: {path}", Window(stream), ())[0]
    if kind == "parquet":
        with arrow_input(path_of(path)) as source:
            return list(opened(path, source).schema_arrow.names)
    return list(dict.fromkeys(name for record in _first(_json(path, list, 0, LARGEST_CELL)) for name in record))


def first_records(path: str, asked: Asked) -> list[Record]:
    """Returns some of the first records that can be read."""
    return _first(read_raw(path, asked, 0, LARGEST_CELL))


def _first(found: Iterator[RawRecords]) -> list[Record]:
    for raw in found:
        if records := [record for record in raw.records if not isinstance(record, Refused)]:
            return records
    return []


def batch_limits() -> tuple[int, int]:
    """Returns the numbers of records and bytes of JSON Lines of which the first that is reached ends a `RawRecords`."""
    return _BATCH_ROWS, _BATCH_BYTES


def _csv(path: str, asked: Asked, at: int, largest_cell: int) -> Iterator[RawRecords]:
    names = asked(own_columns(path))
    for found in read_csv(path, names, at, largest_cell):
        columns = [_texts(name, column) for name, column in zip(names, found.columns, strict=True)]
        records: list[Record | Refused] = []
        for position, values in enumerate(zip(*columns, strict=True)):
            broken = next((value.reason for value in values if isinstance(value, Refused)), None)
            reason = found.faults.get(position, broken)
            records.append(dict(zip(names, values, strict=True)) if reason is None else Refused(reason))
        yield RawRecords(found.at, records, dict(found.warnings))


def _texts(name: str, column: pa.Array) -> list[Any]:
    """Returns a column as texts, with a `Refused` for each that is not UTF-8."""
    try:
        return list(column.cast(pa.large_string()).to_pylist())
    except pa.ArrowInvalid:
        return [_decoded(name, value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(name: str, value: bytes | None) -> str | Refused | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError as error:
        return Refused(f"{name} {no_utf8(error)}")


def _json(path: str, asked: Asked, at: int, largest_cell: int) -> Iterator[RawRecords]:
    with open_bytes(path) as stream:
        if begins_array(stream):
            yield from read_json_array(path, stream, at, largest_cell)
            return
        stream.seek(at)
        most, position, bytes_read = LARGEST_CELLS * largest_cell, at, 0
        records: list[Record | Refused] = []
        for line, size in lines_of(stream, most):
            text = line.removeprefix(BYTE_ORDER_MARK) if position + bytes_read == 0 else line
            if size > most:
                match = FIRST_ID.match(text)
                reason = f"is a line of {size:,} bytes, more than {LARGEST_CELLS} times largest_cell = {largest_cell}"
                records.append(Refused(reason, match[1].decode() if match else None))
            elif text.strip():
                if position + bytes_read == 0:
                    check_first_line(path, text.rstrip())
                records.append(as_record(object_in(text.rstrip(b"\r\n"))))
            bytes_read += size
            if len(records) >= _BATCH_ROWS or bytes_read >= _BATCH_BYTES:
                yield RawRecords(position, records)
                position, bytes_read, records = position + bytes_read, 0, []
        yield RawRecords(position, records)


def as_record(found: Any) -> Record | Refused:
    """Returns an object as a record; refuses what is none, given as the reason, and objects with repeated keys."""
    if isinstance(found, KeysTwice):
        return Refused(f"names the key {min(found.twice)} twice")
    return found if isinstance(found, dict) else Refused(found)


def _parquet(path: str, asked: Asked, at: int, largest_cell: int) -> Iterator[RawRecords]:
    for group, batch in batches_of(path, asked, at):
        try:
            yield RawRecords(group, batch.to_pylist())
        except (UnicodeDecodeError, *NO_PYTHON):
            yield RawRecords(group, [_row(batch.slice(place, 1)) for place in range(batch.num_rows)])


def _row(batch: pa.RecordBatch) -> Record | Refused:
    values = {}
    for name in batch.schema.names:
        try:
            values[name] = batch.column(name)[0].as_py()
        except UnicodeDecodeError as error:
            return Refused(f"{name} {no_utf8(error)}")
        except NO_PYTHON:
            return Refused(f"{name} has a value of the type {batch.schema.field(name).type}, which cannot be read")
    return values
