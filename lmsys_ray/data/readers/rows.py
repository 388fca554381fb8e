"""Reads validated rows from a file: the same record in whichever format it is."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from gzip import BadGzipFile

import pyarrow as pa

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.data.readers.checks import NEEDED, validated_rows
from lmsys_ray.data.readers.csv_blocks import read_csv
from lmsys_ray.data.readers.files import file_format
from lmsys_ray.data.readers.json_lines import read_json_lines
from lmsys_ray.data.readers.mixed_cells import Sample, with_warnings
from lmsys_ray.data.readers.parquet import read_parquet
from lmsys_ray.data.readers.records import BEGINNING, LARGEST_CELL, ReadPosition, Records
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
) -> Iterator[pa.Table]:
    """Yields the rows of a CSV, Parquet or JSON Lines file as tables with the schema `READ`, in constant memory.

    `extra` names further columns, added as nullable text; `limit` is the most rows to read; `start` is the beginning of
    the file or the position of a row from an earlier reading. Every row is yielded once, in order; one that cannot be
    used, such as one with a cell of more than `largest_cell` bytes, has a `reason`, null cells, and its id if known.
    Raises `UsageError` where a required column is missing, `RunError` where the file itself is damaged.
    """

    def sample() -> Sample:
        return Sample.of(_validated(path, form, (), BEGINNING, largest_cell))

    tables = _validated(path, form, extra, start, largest_cell)
    left = limit
    for table in with_warnings(tables, start == BEGINNING, sample):
        table = table.slice(0, left)
        left = None if left is None else left - table.num_rows
        if table.num_rows:
            yield table
        if left == 0:
            return


def _validated(
    path: str, form: CellForm, extra: Sequence[str], start: ReadPosition, largest_cell: int
) -> Iterator[pa.Table]:
    """Yields all rows from `start` on as `validated_rows` returns them, in tables that are not empty."""
    at, start_row, number = start.at, start.row, start.row
    try:
        for records in _READERS[file_format(path)](path, [*NEEDED, *extra], start.at, largest_cell):
            if records.at != at:
                at, start_row = records.at, number
            if len(records.columns[0]):
                yield validated_rows(records, form, start_row, number, list(extra), largest_cell)
            number += len(records.columns[0])
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(
            f"{path} is damaged after row {number - 1}: its gzip stream is broken or truncated; fetch it again"
        ) from None


def check_columns(path: str, extra: Sequence[str] = ()) -> None:
    """Raises `UsageError` where a file lacks a required column or is not of its format; reads only its beginning."""
    try:
        next(_READERS[file_format(path)](path, [*NEEDED, *extra], 0, LARGEST_CELL), None)
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(f"{path} is damaged: its gzip stream is broken or truncated; fetch it again") from None
