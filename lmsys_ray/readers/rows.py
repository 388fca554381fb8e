"""From a file to checked rows: the same record, whichever of the formats it came in."""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from gzip import BadGzipFile
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.conversations import CELLS, BadCellError, CellForm, decode_cell
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.readers.csv_records import BrokenRecord, csv_records
from lmsys_ray.readers.files import file_format, open_bytes

NEEDED = ("id", *CELLS)

READ = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        *(pa.field(name, pa.large_string()) for name in CELLS),
        pa.field("reason", pa.string()),
    ]
)
"""What `read_rows` yields: the row's number in its file from 1, the record, and where it cannot be used the reason."""

_TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 8 << 20
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# What may be taken for the id of a CSV record that is damaged further on: a short token with a digit, no running text.
_PLAIN_ID = re.compile(r"(?=.*[0-9])[\w.:-]{1,64}")


@dataclass(frozen=True)
class _Row:
    """Values in the order of the columns asked for, or the reason why there are none and the id, where it is known."""

    values: Sequence[Any] | None
    reason: str | None = None
    identity: str | None = None


def read_rows(
    path: str, form: CellForm = "auto", extra: Sequence[str] = (), limit: int | None = None
) -> Iterator[pa.Table]:
    """Yields the rows of a CSV, Parquet or JSON Lines file as tables with the schema `READ`, memory flat.

    `extra` names further columns, added as nullable text; `limit` ends the reading after so many rows. Every row comes
    out once, in order; one that cannot be used has a `reason`, null cells, and its id where that could be read.

    Raises `UsageError` where a needed column is missing, `RunError` where the file itself is damaged.
    """
    columns = [*NEEDED, *extra]
    schema = pa.schema([*READ, *(pa.field(name, pa.string()) for name in extra)])
    rows: Iterator[_Row] = islice(_raw_rows(path, columns), limit)
    batch: list[tuple] = []
    characters = 0
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            record = (number, *_checked(row, len(columns), form))
            batch.append(record)
            characters += sum(len(cell) for cell in record[2:5] if cell)
            if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
                yield _table(batch, schema)
                batch, characters = [], 0
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(f"{path} is damaged after row {number}: its gzip stream is cut short; fetch it again") from None
    if batch:
        yield _table(batch, schema)


def check_columns(path: str, extra: Sequence[str] = ()) -> None:
    """Raises `UsageError` where a file lacks a needed column or is no file of its format; reads its beginning only."""
    try:
        next(_raw_rows(path, [*NEEDED, *extra]), None)
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(f"{path} is damaged: its gzip stream is cut short; fetch it again") from None


def _table(batch: list[tuple], schema: pa.Schema) -> pa.Table:
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(zip(*batch, strict=True), schema, strict=True)],
        schema=schema,
    )


def _checked(row: _Row, width: int, form: CellForm) -> tuple:
    """Returns (id, prompt, response_a, response_b, reason, *extra) of a raw row."""
    if row.values is None:
        return (row.identity, None, None, None, row.reason, *[None] * (width - 4))
    identity, *cells = row.values[:4]
    extra = [_text_or_none(value) for value in row.values[4:]]
    if not isinstance(identity, str) or not identity.strip():
        return (None, None, None, None, "id is missing or neither text nor a whole number", *extra)
    if not identity.isascii() and _SURROGATE.search(identity):
        return (None, None, None, None, "id is not valid UTF-8", *extra)
    if "\n" in identity or "\r" in identity:
        return (None, None, None, None, "id holds a line break", *extra)
    reason = next(filter(None, (_fault(name, cell, form) for name, cell in zip(CELLS, cells, strict=True))), None)
    return (identity, None, None, None, reason, *extra) if reason else (identity, *cells, None, *extra)


def _fault(name: str, cell: object, form: CellForm) -> str | None:
    """Returns why a cell cannot be used, or None."""
    if cell is None:
        return f"{name} is missing"
    if not isinstance(cell, str):
        return f"{name} is neither text nor a list of turns"
    if not cell.isascii() and _SURROGATE.search(cell):
        escaped = _ESCAPED_BYTE.search(cell)
        byte = f" (byte 0x{ord(escaped.group()) - 0xDC00:02x})" if escaped else ""
        return f"{name} is not valid UTF-8{byte}"
    try:
        decode_cell(cell, form)
    except BadCellError as error:
        return f"{name} {error}"
    return None


def _text_or_none(value: object) -> str | None:
    """An extra column's value as text; what is no valid text counts as missing."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return None if _SURROGATE.search(text) else text


def _raw_rows(path: str, columns: Sequence[str]) -> Iterator[_Row]:
    readers: dict[str, Callable[[str, Sequence[str]], Iterator[_Row]]] = {
        "csv": _csv_rows,
        "jsonl": _jsonl_rows,
        "parquet": _parquet_rows,
    }
    return readers[file_format(path)](path, columns)


def _missing_columns(path: str, columns: Sequence[str], found: Sequence[str]) -> UsageError:
    missing = [name for name in columns if name not in found]
    shown = ", ".join(found[:12])
    hint = "; is its delimiter a comma?" if len(found) == 1 else ""
    return UsageError(f"input: {path} has no column {', '.join(missing)}; it has {shown}{hint}")


def _csv_rows(path: str, columns: Sequence[str]) -> Iterator[_Row]:
    with open_bytes(path) as stream:
        # Bytes that are no UTF-8 become lone surrogates, which the check of each cell finds: a bad byte costs a row.
        records = csv_records(line.decode("utf-8", "surrogateescape") for line in stream)
        header = next(records, None)
        if header is None:
            raise UsageError(f"input: {path} is empty; its first line must name the columns {', '.join(columns)}")
        if isinstance(header, BrokenRecord):
            raise UsageError(f"input: {path} has a broken header: {header.reason}")
        header[0] = header[0].removeprefix("\ufeff").strip('"')
        if set(columns) - set(header):
            raise _missing_columns(path, columns, header)
        places = [header.index(name) for name in columns]
        for record in records:
            if isinstance(record, BrokenRecord):
                yield _Row(None, record.reason, _plain_id(record.first_cell, header))
            elif len(record) != len(header):
                reason = f"has {len(record)} cells where the header names {len(header)}"
                yield _Row(None, reason, _plain_id(record[0], header))
            else:
                yield _Row([record[place] for place in places])


def _plain_id(first_cell: str, header: list[str]) -> str | None:
    """The id of a damaged record, which is safe to tell only where it stands before the damage."""
    return first_cell if header[0] == "id" and _PLAIN_ID.fullmatch(first_cell) else None


def _jsonl_rows(path: str, columns: Sequence[str]) -> Iterator[_Row]:
    first = True
    with open_bytes(path) as stream:
        for line in stream:
            line = line.removeprefix(b"\xef\xbb\xbf") if first else line
            if not line.strip():
                continue
            row, keys = _jsonl_row(line, columns)
            if first and keys is not None and set(columns) - set(keys):
                raise _missing_columns(path, columns, keys)
            first = False
            yield row
    if first:
        raise UsageError(f"input: {path} is empty; each line must be an object with the keys {', '.join(columns)}")


def _jsonl_row(line: bytes, columns: Sequence[str]) -> tuple[_Row, list[str] | None]:
    """Returns the row of a line, and its keys where it is an object."""
    try:
        record = json.loads(line.decode("utf-8"), strict=False)
    except UnicodeDecodeError as error:
        return _Row(None, f"is not valid UTF-8 (byte 0x{line[error.start]:02x})"), None
    except RecursionError:
        return _Row(None, "is JSON nested too deeply"), None
    except ValueError as error:
        return _Row(None, f"is not valid JSON ({str(error)[:80]})"), None
    if not isinstance(record, dict):
        return _Row(None, "is JSON but no object"), None
    identity, *values = (record.get(name) for name in columns)
    return _Row([_id_text(identity), *map(_cell_text, values)]), list(record)


def _id_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _cell_text(value: object) -> object:
    """A list of turns as the JSON text that a CSV would hold, with escapes as in the competition's files."""
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, str) and not value.isascii():
        return _SURROGATE.sub("\ufffd", value)  # escapes such as \ud83d without their twin
    return value


def _parquet_rows(path: str, columns: Sequence[str]) -> Iterator[_Row]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        raise UsageError(f"input: {path} is no Parquet file, or it is cut short; fetch it again") from None
    with file:
        if set(columns) - set(file.schema_arrow.names):
            raise _missing_columns(path, columns, file.schema_arrow.names)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=256, columns=list(columns)):
                values = [_parquet_values(path, name, batch.column(name)) for name in columns]
                for row in zip(*values, strict=True):
                    number += 1
                    yield _Row(row)
        except (pa.ArrowException, OSError) as error:
            raise RunError(
                f"{path} is damaged after row {number}: {str(error).splitlines()[0]}; fetch it again"
            ) from None


def _parquet_values(path: str, name: str, column: pa.Array) -> list[Any]:
    """Returns a column's values as texts; lists of turns become JSON text, as in `_cell_text`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if kind in _TEXT_TYPES:
        # By way of bytes: Parquet does not promise valid UTF-8, and one bad value must not cost its whole batch.
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
    if pa.types.is_integer(kind) or (name not in NEEDED and (pa.types.is_floating(kind) or pa.types.is_boolean(kind))):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if name != "id" and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [_cell_text(value) for value in column.to_pylist()]
    if pa.types.is_null(kind):
        return [None] * len(column)
    accepted = "text or whole numbers" if name == "id" else "text or lists of text"
    raise UsageError(f"input: {path} has {kind} in column {name}; accepted: {accepted}")
