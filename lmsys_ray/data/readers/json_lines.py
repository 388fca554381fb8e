"""Reads JSON Lines: one object a line. Measurements: docs/lab/inputs.md."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from lmsys_ray.data.readers.files import missing_columns, open_bytes
from lmsys_ray.data.readers.records import Records, text_column
from lmsys_ray.data.readers.typed import TypedCells
from lmsys_ray.data.turns import without_lone_surrogates
from lmsys_ray.errors import UsageError, first_line

_BATCH_ROWS = 1024
_BATCH_BYTES = 2 << 20

_BEGINNING_BYTES = 4096
_SKIPPED_BYTES = 1 << 20

LARGEST_CELLS = 4
"""A line may have this many cells of the largest size: an id and three texts."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FIRST_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"?((?<=")[!#-\[\]-~]+(?=")|-?[0-9]+(?=[\s,}]))"?\s*,')


def read_json_lines(path: str, columns: Sequence[str], at: int, largest_cell: int) -> Iterator[Records]:
    """Yields the records from byte `at`; a line that is too long for its cells is skipped and refused.

    Raises `UsageError` for an empty file, for JSON that is not one object a line, and where none of the first objects
    has one of `columns`.
    """
    batch = _Batch(columns, at)
    first = at == 0
    with open_bytes(path) as stream:
        stream.seek(at)
        for line, size in lines_of(stream, LARGEST_CELLS * largest_cell):
            begins = batch.at + batch.bytes == 0
            text = (line.removeprefix(BYTE_ORDER_MARK) if begins else line).rstrip(b"\r\n")
            if size > LARGEST_CELLS * largest_cell:
                batch.refuse(
                    text, f"is a line of {size:,} bytes, more than {LARGEST_CELLS} times largest_cell = {largest_cell}"
                )
            elif text.strip():
                if first and not batch.rows:
                    check_first_line(path, text)
                batch.add(text)
            batch.bytes += size
            if batch.is_full():
                _check_keys(path, columns, batch, first)
                first = first and not batch.rows
                yield batch.records()
                batch = _Batch(columns, batch.at + batch.bytes)
    _check_keys(path, columns, batch, first)
    if first and not batch.rows:
        raise UsageError(f"input: {path} is empty; each line must be an object with the keys {', '.join(columns)}")
    yield batch.records()


def batch_limits() -> tuple[int, int]:
    """Returns the numbers of records and of bytes of which the first that is reached ends a `Records`."""
    return _BATCH_ROWS, _BATCH_BYTES


def lines_of(stream: BinaryIO, most: int) -> Iterator[tuple[bytes, int]]:
    """Yields each line and its size in bytes; of one with more than `most` only the beginning."""
    while line := stream.readline(most + 1):
        size = len(line)
        if size > most:
            line, rest = line[:_BEGINNING_BYTES], line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_SKIPPED_BYTES)
                size += len(rest)
        yield line, size


def check_first_line(path: str, line: bytes) -> None:
    """Raises `UsageError` where a file does not begin with an object that ends in its first line."""
    if line.lstrip()[:1] == b"[" or line.strip() == b"{":
        found = "an array" if line.lstrip()[:1] == b"[" else "an object over several lines"
        raise UsageError(
            f"input: {path} begins with {found} where each line must be an object; convert it, for example with "
            "jq -c '.[]' FILE (jq -c . FILE where it is not an array)"
        )


def _check_keys(path: str, columns: Sequence[str], batch: "_Batch", first: bool) -> None:
    """Raises `UsageError` where none of the first objects has a column; one object that lacks it is only a reject."""
    if first and batch.keys and set(columns) - set(batch.keys):
        raise missing_columns(path, columns, list(batch.keys))


class _Batch:
    """Successive lines that become one `Records`."""

    def __init__(self, columns: Sequence[str], at: int) -> None:
        self._columns = columns
        self._rows: list[list[str | None]] = []
        self.keys: dict[str, None] = {}
        """The keys of its objects, in order of appearance."""
        self._faults: dict[int, str] = {}
        self._cells = TypedCells()
        self.at = at
        self.bytes = 0

    @property
    def rows(self) -> int:
        return len(self._rows)

    def is_full(self) -> bool:
        most_rows, most_bytes = batch_limits()
        return len(self._rows) >= most_rows or self.bytes >= most_bytes

    def records(self) -> Records:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self._columns)
        return self._cells.records(self.at, list(map(text_column, columns)), self._faults)

    def add(self, line: bytes) -> None:
        """Adds the record of a line."""
        record = object_in(line)
        if isinstance(record, str):
            self._fail(None, record)
            return
        self.keys |= dict.fromkeys(record)
        position = len(self._rows)
        identity, *values = (record.get(name) for name in self._columns)
        twice = [name for name in self._columns if name in getattr(record, "twice", ())]
        if twice:
            self._fail(None if "id" in twice else _id_text(identity), f"names the key {twice[0]} twice")
            return
        named = zip(self._columns[1:4], values, strict=False)
        cells = [self._cells.cell(name, position, _sound(value)) for name, value in named]
        self._rows.append([_id_text(identity), *cells, *map(_extra_text, values[3:])])

    def refuse(self, beginning: bytes, reason: str) -> None:
        """Adds the record of a line of which only the beginning is known; its id is used if it comes first."""
        match = FIRST_ID.match(beginning)
        self._fail(match[1].decode() if match else None, reason)

    def _fail(self, identity: str | None, reason: str) -> None:
        self._faults[len(self._rows)] = reason
        self._rows.append([identity, *[None] * (len(self._columns) - 1)])


class KeysTwice(dict[str, Any]):
    """An object with repeated keys."""

    twice: frozenset[str]


def _of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    doubled = KeysTwice(record)
    doubled.twice = frozenset(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    return doubled


# Not strict: control characters inside texts are kept. `json.loads` would create a decoder for each line.
DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_of_pairs)
"""Reads objects; those that name a key twice are `KeysTwice`."""


def object_in(line: bytes) -> dict[str, Any] | str:
    """Returns the object in a line, or the reason why there is none."""
    try:
        record = DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"is not valid UTF-8 (byte 0x{line[error.start]:02x})"
    except RecursionError:
        return "is JSON nested too deeply"
    except ValueError as error:
        return f"is not valid JSON ({first_line(error, 80)})"
    return record if isinstance(record, dict) else "is JSON but no object"


def _id_text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _sound(value: object) -> object:
    """Returns a text without lone surrogates, which Arrow cannot hold."""
    return without_lone_surrogates(value) if isinstance(value, str) else value


def _extra_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
