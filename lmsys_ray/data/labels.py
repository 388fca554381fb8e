"""Reads which response people preferred: one class for each id."""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from gzip import BadGzipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.data.readers.csv_blocks import csv_header
from lmsys_ray.data.readers.csv_records import csv_records
from lmsys_ray.data.readers.files import file_format, open_bytes
from lmsys_ray.data.readers.records import LARGEST_CELL
from lmsys_ray.data.readers.windows import Window
from lmsys_ray.data.schemas.values import ONE_HOT, WINNERS, one_hot_class
from lmsys_ray.errors import RunError, UsageError, first_line
from lmsys_ray.storage.files import arrow_input, exists, is_directory, path_of

COLUMNS = ONE_HOT
"""The one-hot label columns, in the order of `lmsys_ray.CLASSES`."""

WINNER = "winner"
"""The column that may be there in their place, as in the Arena's data: model_a, model_b, tie."""

SOURCE = "source"
"""The optional column that says which collection a row is from."""

_Record = dict[str, object]


@dataclass(frozen=True)
class Labels:
    """The readable rows of a labels file, in its order."""

    ids: pa.Array
    classes: np.ndarray
    """The chosen class of each row as 0, 1 or 2 [rows]."""
    sources: list[str | None] | None
    """None where the file has no column `source`."""
    unreadable: int
    """Rows without an id, or too damaged to be read."""

    def digest(self) -> str:
        """Returns a digest of the ids and what was chosen for each."""
        pairs = zip(self.ids.to_pylist(), self.classes.tolist(), strict=True)
        return hashlib.sha256(json.dumps([*pairs]).encode()).hexdigest()[:16]


def read_labels(path: str) -> Labels:
    """Reads `id`, the three label columns or `winner` and, if present, `source` from a CSV, JSON Lines or Parquet file.

    Raises `UsageError` where the file or a column is missing, `RunError` for labels that are not one-hot, for repeated
    ids, and where there are no labels.
    """
    if not exists(path_of(path)) or is_directory(path_of(path)):
        raise UsageError(f"--labels: {path} is not a file; give a .csv, .jsonl or .parquet file with {_listed()}")
    ids: dict[str, int] = {}
    classes, sources, unreadable = [], [], 0
    try:
        for number, record in enumerate(_records(path), 1):
            if record is None or _is_gap(record.get("id")):
                unreadable += 1
                continue
            identity = str(record["id"])
            if identity in ids:
                raise RunError(f"{path}: id {identity} is in rows {ids[identity]} and {number}; keep one of them")
            ids[identity] = number
            place = f"{path}, row {number} (id {identity})"
            if WINNER in record:
                classes.append(_won(record[WINNER], place))
            else:
                classes.append(chosen_class([record.get(name) for name in COLUMNS], place))
            sources.append(str(record[SOURCE]) if record.get(SOURCE) not in (None, "") else None)
    except (EOFError, BadGzipFile, zlib.error, pa.ArrowInvalid) as error:
        raise RunError(f"--labels: {path} is damaged ({first_line(error)}); fetch it again") from None
    if not ids:
        raise RunError(f"--labels: {path} has no row that can be read; its columns should be {_listed()}")
    has_source = any(source is not None for source in sources)
    return Labels(pa.array(ids, pa.string()), np.array(classes), sources if has_source else None, unreadable)


def chosen_class(values: Sequence[object], place: str) -> int:
    """Returns the class, 0, 1 or 2, whose column holds 1 while the others hold 0; raises `RunError` where none does."""
    found = one_hot_class(values)
    if found is None:
        shown = ", ".join("nothing" if value in (None, "") else str(value)[:20] for value in values)
        raise RunError(f"{place}: {', '.join(COLUMNS)} are {shown}; one of them must be 1 and the others 0")
    return found


def _won(value: object, place: str) -> int:
    found = WINNERS.get(str(value).strip().casefold())
    if found is None:
        raise RunError(f"{place}: {WINNER} is {str(value)[:20]!r}; accepted: {', '.join(WINNERS)}")
    return found


def _is_gap(identity: object) -> bool:
    return identity in (None, "") or (isinstance(identity, float) and math.isnan(identity))


def _records(path: str) -> Iterator[_Record | None]:
    """Yields the needed columns of each row, None for a row that cannot be read."""
    readers = {"csv": _csv_records, "jsonl": _jsonl_records, "parquet": _parquet_records}
    return readers[file_format(path)](path)


def _csv_records(path: str) -> Iterator[_Record | None]:
    with open_bytes(path) as stream:
        window = Window(stream)
        header, _ = csv_header(f"--labels: {path}", window, ("id", *COLUMNS))
        places = {name: header.index(name) for name in _wanted(path, header)}
        for record in csv_records(window, header, LARGEST_CELL):
            cells = [cell.decode("utf-8", "replace") for cell in record.cells]
            yield None if record.fault else {name: cells[place] for name, place in places.items()}


def _jsonl_records(path: str) -> Iterator[_Record | None]:
    first = True
    with open_bytes(path) as stream:
        for line in filter(bytes.strip, stream):
            try:
                record = json.loads(line.decode("utf-8-sig"), strict=False)
            except (ValueError, RecursionError):
                record = None
            if first and isinstance(record, dict):
                _wanted(path, list(record))
                first = False
            yield record if isinstance(record, dict) else None


def _parquet_records(path: str) -> Iterator[_Record | None]:
    with arrow_input(path_of(path)) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(columns=_wanted(path, file.schema_arrow.names)):
            yield from batch.to_pylist()


def _wanted(path: str, found: Sequence[str]) -> list[str]:
    """Returns the columns to read; raises `UsageError` where a required one is not `found`."""
    needed = ("id", WINNER) if WINNER in found and not set(COLUMNS) & set(found) else ("id", *COLUMNS)
    missing = [name for name in needed if name not in found]
    if missing:
        shown = ", ".join(found[:12]) or "nothing"
        raise UsageError(f"--labels: {path} has no column {', '.join(missing)}; it has {shown}")
    return [name for name in (*needed, SOURCE) if name in found]


def _listed() -> str:
    return ", ".join(("id", *COLUMNS))
