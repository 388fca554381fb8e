"""Reads validated rows from a file: the same record in whichever format it is."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.data.readers.carried import sources, with_carried
from lmsys_ray.data.readers.checks import NEEDED, validated_rows
from lmsys_ray.data.readers.convert import converted
from lmsys_ray.data.readers.csv_blocks import read_csv
from lmsys_ray.data.readers.files import BROKEN_STREAM, file_format, missing_columns
from lmsys_ray.data.readers.json_lines import read_json_lines
from lmsys_ray.data.readers.mixed_cells import Sample, with_warnings
from lmsys_ray.data.readers.parquet import read_parquet
from lmsys_ray.data.readers.partitions import partition_values
from lmsys_ray.data.readers.raw import columns_of, first_records, is_direct, own_columns, read_raw
from lmsys_ray.data.readers.records import BEGINNING, LARGEST_CELL, ReadPosition, Records
from lmsys_ray.data.schemas.reading import PLAIN, Reading
from lmsys_ray.data.schemas.recognise import Head
from lmsys_ray.data.schemas.row import RawRecords
from lmsys_ray.errors import RunError

_READERS: dict[str, Callable[[str, Sequence[str], int, int], Iterator[Records]]] = {
    "csv": read_csv,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
}


def read_rows(
    path: str,
    form: CellForm = "auto",
    extra: Sequence[str] = (),
    limit: int | None = None,
    start: ReadPosition = BEGINNING,
    largest_cell: int = LARGEST_CELL,
    reading: Reading = PLAIN,
    name: str = "",
) -> Iterator[pa.Table]:
    """Yields the rows of a CSV, Parquet or JSON file as tables with the schema `READ`, in constant memory.

    `extra` names further columns of files with the contest's columns, added as nullable text; `limit` is the most rows
    to read; `start` is the beginning of the file or the position of a row from an earlier reading. `reading` says how
    records become rows, and which columns of `CARRIED` follow; `name` is what ids of rows without one begin with. Every
    row is yielded once, in order; one that cannot be used, such as one with a cell of more than `largest_cell` bytes,
    has a `reason`, null cells, and its id if known. Raises `UsageError` where a required column is missing, `RunError`
    where the file itself is damaged.
    """

    def sample() -> Sample:
        return Sample.of(_validated(path, form, (), BEGINNING, largest_cell, reading, name))

    tables = _validated(path, form, extra, start, largest_cell, reading, name)
    left = limit
    for table in with_warnings(tables, start == BEGINNING, sample):
        table = table.slice(0, left)
        left = None if left is None else left - table.num_rows
        if table.num_rows:
            yield table
        if left == 0:
            return


def _validated(
    path: str,
    form: CellForm,
    extra: Sequence[str],
    start: ReadPosition,
    largest_cell: int,
    reading: Reading,
    name: str,
) -> Iterator[pa.Table]:
    """Yields all rows from `start` on as `validated_rows` returns them, in tables that are not empty."""
    at, start_row, number = start.at, start.row, start.row
    try:
        direct = is_direct(path, reading)
        further = [*extra, *(sources(reading, columns_of(path)) if direct and reading.carried else [])]
        named = _named_by_folders(path, further) if direct else {}
        own = [name for name in further if name not in named] if direct else []
        for found in _records(path, own, start.at, largest_cell, reading, direct):
            if found.at != at:
                at, start_row = found.at, number
            records = found if isinstance(found, Records) else converted(found, reading, number, name)
            if len(records.columns[0]):
                rows = validated_rows(records, form, start_row, number, own, largest_cell)
                for column, value in named.items():
                    rows = rows.append_column(column, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
                yield _carrying(rows, records, reading, further[len(extra) :] if direct else None)
            number += len(records.columns[0])
    except BROKEN_STREAM:
        raise _broken(path, f" after row {number - 1}") from None


def _records(
    path: str, own: Sequence[str], at: int, largest_cell: int, reading: Reading, direct: bool
) -> Iterator[Records | RawRecords]:
    if direct:
        return _READERS[file_format(path)](path, [*NEEDED, *own], at, largest_cell)
    return read_raw(path, reading.asked, at, largest_cell)


def _named_by_folders(path: str, columns: Sequence[str]) -> dict[str, str | None]:
    """Returns the values of those `columns` that a file lacks and its folders name."""
    named = {name: value for name, value in partition_values(path).items() if name in columns}
    own = own_columns(path) if named else []
    return {name: value for name, value in named.items() if name not in own}


def _carrying(rows: pa.Table, records: Records, reading: Reading, names: Sequence[str] | None) -> pa.Table:
    """Returns rows with their carried columns, from the columns `names` of text or from converted records."""
    if names is not None:
        return with_carried(rows, reading, names) if reading.carried else rows
    for column in reading.carried:
        rows = rows.append_column(CARRIED.field(column), records.carried[column])
    return rows


def check_columns(path: str, extra: Sequence[str] = (), reading: Reading = PLAIN) -> None:
    """Raises `UsageError` where a file lacks a required column or is not of its format; reads only its beginning."""
    try:
        if is_direct(path, reading):
            named = _named_by_folders(path, extra)
            own = [*NEEDED, *(name for name in extra if name not in named)]
            next(_READERS[file_format(path)](path, own, 0, LARGEST_CELL), None)
        elif missing := reading.missing(found := columns_of(path)):
            raise missing_columns(path, missing, found)
    except BROKEN_STREAM:
        raise _broken(path) from None


def head(path: str, rows: int = 50) -> Head:
    """Returns the columns and the first records of a file; raises as `check_columns` does."""
    try:
        return Head(path, columns_of(path), first_records(path, _once)[:rows])
    except BROKEN_STREAM:
        raise _broken(path) from None


def _once(columns: Sequence[str]) -> list[str]:
    return [name for name, times in Counter(columns).items() if times == 1]


def _broken(path: str, after: str = "") -> RunError:
    packing = "zstd" if path.lower().endswith(".zst") else "gzip"
    return RunError(f"{path} is damaged{after}: its {packing} stream is broken or truncated; fetch it again")
