"""From a file to checked rows: the same record, whichever of the formats it came in."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from gzip import BadGzipFile

import pyarrow as pa

from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import RunError
from lmsys_ray.readers.checks import NEEDED, checked
from lmsys_ray.readers.csv_blocks import read_csv
from lmsys_ray.readers.files import file_format
from lmsys_ray.readers.json_lines import read_json_lines
from lmsys_ray.readers.parquet import read_parquet
from lmsys_ray.readers.records import BEGINNING, Records, Start

_READERS: dict[str, Callable[[str, Sequence[str], int], Iterator[Records]]] = {
    "csv": read_csv,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
}


def read_rows(
    path: str,
    form: CellForm = "auto",
    extra: Sequence[str] = (),
    limit: int | None = None,
    start: Start = BEGINNING,
) -> Iterator[pa.Table]:
    """Yields the rows of a CSV, Parquet or JSON Lines file as tables with the schema `READ`, memory flat.

    `extra` names further columns, added as nullable text; `limit` ends the reading after so many rows; `start` is the
    file's beginning or the `Start` of a row that an earlier reading yielded. Every row comes out once, in order; one
    that cannot be used has a `reason`, null cells, and its id where that could be read.

    Raises `UsageError` where a needed column is missing, `RunError` where the file itself is damaged.
    """
    at, start_row, number = start.at, start.row, start.row
    end = None if limit is None else start.row + limit
    try:
        for records in _READERS[file_format(path)](path, [*NEEDED, *extra], start.at):
            if records.at != at:
                at, start_row = records.at, number
            table = checked(records, form, start_row, number, list(extra))
            if end is not None:
                table = table.slice(0, end - number)
            if table.num_rows:
                yield table
            number += table.num_rows
            if number == end:
                return
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(
            f"{path} is damaged behind row {number - 1}: its gzip stream is broken or cut short; fetch it again"
        ) from None


def check_columns(path: str, extra: Sequence[str] = ()) -> None:
    """Raises `UsageError` where a file lacks a needed column or is no file of its format; reads its beginning only."""
    try:
        next(_READERS[file_format(path)](path, [*NEEDED, *extra], 0), None)
    except (EOFError, BadGzipFile, zlib.error):
        raise RunError(f"{path} is damaged: its gzip stream is broken or cut short; fetch it again") from None
