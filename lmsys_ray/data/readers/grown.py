"""Whether a text file that grew still holds the rows of before: what follows a row may change how CSV reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from lmsys_ray.data.readers.files import file_format
from lmsys_ray.data.readers.raw import is_array
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import path_of

_NOT_COMPARED = ("start_at", "start_row", "warning")

_BLOCK = 1 << 20


def may_grow(path: str) -> bool:
    """Returns whether rows may be added at the end of a file of this name and content: local CSV or JSON Lines."""
    plain = path.lower().endswith((".csv", ".jsonl", ".json"))
    return plain and isinstance(path_of(path), Path) and not is_array(path)


def ends_a_line(path: Path, size: int) -> bool:
    """Returns whether a line ends where the first `size` bytes of a file do, or just behind them."""
    with storage_errors(path, "read"), path.open("rb") as file:
        file.seek(max(0, size - 1))
        text = file.read(3)
    return size == 0 or text[:1] == b"\n" or text[1:2] == b"\n" or text[1:] == b"\r\n"


def first_changed(path: Path, size: int, read: Callable[[str], Iterable[pa.Table]]) -> int | None:
    """Returns the first row, from 1, that is another than when the file had `size` bytes; None where all are the same.

    `read` yields the rows of a file as `lmsys_ray.data.readers.READ`. A line of JSON Lines reads the same whatever
    follows it. CSV is read twice, once from a temporary copy of what the file was.
    """
    if file_format(str(path)) != "csv":
        return None
    with TemporaryDirectory() as folder:
        before = Path(folder) / path.name
        with storage_errors(before, "written"), path.open("rb") as file, before.open("wb") as copy:
            while size and (data := file.read(min(size, _BLOCK))):
                copy.write(data)
                size -= len(data)
        return _first_other(_compared(read(str(before))), _compared(read(str(path))))


def _compared(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield table.drop_columns(_NOT_COMPARED)


def _first_other(before: Iterator[pa.Table], now: Iterator[pa.Table]) -> int | None:
    """Returns the number of the first row of `before` that `now` lacks or has otherwise."""
    ahead: pa.Table | None = None
    for table in before:
        while table.num_rows:
            ahead = ahead if ahead is not None and ahead.num_rows else next(now, None)
            if ahead is None:
                return int(table["number"][0].as_py())
            rows = min(table.num_rows, ahead.num_rows)
            old, new = table.slice(0, rows), ahead.slice(0, rows)
            if not old.equals(new):
                same = [old.slice(place, 1).equals(new.slice(place, 1)) for place in range(rows)]
                return int(old["number"][same.index(False)].as_py())
            table, ahead = table.slice(rows), ahead.slice(rows)
    return None
