"""JSON Lines: one object a line."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lmsys_ray.errors import UsageError
from lmsys_ray.readers.files import missing_columns, open_bytes
from lmsys_ray.readers.records import Records, text_columns
from lmsys_ray.readers.typed import TypedCells

_BATCH_ROWS = 1024
_BATCH_BYTES = 2 << 20

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Not strict: control characters inside texts are kept. `json.loads` would make a decoder for each line.
_DECODE = json.JSONDecoder(strict=False).decode


def read_json_lines(path: str, columns: Sequence[str], at: int) -> Iterator[Records]:
    """Yields the records from byte `at` on.

    Raises `UsageError` for an empty file, and where the first line is an object that lacks one of `columns`.
    """
    batch = _Batch(columns, at)
    first = at == 0
    with open_bytes(path) as stream:
        stream.seek(at)
        for line in stream:
            text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).rstrip(b"\r\n")
            if text.strip():
                keys = batch.add(text)
                if first and keys is not None and set(columns) - set(keys):
                    raise missing_columns(path, columns, keys)
                first = False
            batch.bytes += len(line)
            if batch.is_full():
                yield batch.records()
                batch = _Batch(columns, batch.at + batch.bytes)
    if first:
        raise UsageError(f"input: {path} is empty; each line must be an object with the keys {', '.join(columns)}")
    yield batch.records()


class _Batch:
    """Successive lines that become one `Records`."""

    def __init__(self, columns: Sequence[str], at: int) -> None:
        self._columns = columns
        self._rows: list[list[str | None]] = []
        self._faults: dict[int, str] = {}
        self._cells = TypedCells()
        self.at = at
        self.bytes = 0

    def is_full(self) -> bool:
        return len(self._rows) >= _BATCH_ROWS or self.bytes >= _BATCH_BYTES

    def records(self) -> Records:
        columns = text_columns(self._rows, len(self._columns), "surrogatepass")
        return self._cells.records(self.at, columns, self._faults)

    def add(self, line: bytes) -> list[str] | None:
        """Adds the record of a line; returns its keys where it is an object."""
        record = _object(line)
        if isinstance(record, str):
            self._faults[len(self._rows)] = record
            self._rows.append([None] * len(self._columns))
            return None
        position = len(self._rows)
        identity, *values = (record.get(name) for name in self._columns)
        named = zip(self._columns[1:4], values, strict=False)
        cells = [self._cells.cell(name, position, _sound(value)) for name, value in named]
        self._rows.append([_id_text(identity), *cells, *map(_extra_text, values[3:])])
        return list(record)


def _object(line: bytes) -> dict[str, Any] | str:
    """Returns the object that a line holds, or why it holds none."""
    try:
        record = _DECODE(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"is not valid UTF-8 (byte 0x{line[error.start]:02x})"
    except RecursionError:
        return "is JSON nested too deeply"
    except ValueError as error:
        return f"is not valid JSON ({str(error)[:80]})"
    return record if isinstance(record, dict) else "is JSON but no object"


def _id_text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _sound(value: object) -> object:
    """A text without lone surrogates, such as \\ud83d without its twin, which no text of Arrow can hold."""
    return value if not isinstance(value, str) or value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)


def _extra_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
