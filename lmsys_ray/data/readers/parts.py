"""Cuts large files into parts that tasks read side by side: the same rows, in the same tables, as in one piece.

JSON Lines are cut where a reader's tables end, which needs the ends of all lines: finding these takes a few per cent of
the time of reading. Parquet is cut between row groups. CSV stays whole, since only reading it tells where a record
ends, as do compressed files and arrays. Measurements: docs/lab/inputs.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lmsys_ray.data.readers import json_lines, raw
from lmsys_ray.data.readers.files import file_format
from lmsys_ray.data.readers.parquet import opened
from lmsys_ray.data.readers.records import ReadPosition
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.storage.files import arrow_input, path_of

PART_BYTES = 64 << 20
"""The least size of a part; of Parquet, unpacked. A second process that reads takes seconds to start."""

_LEAST_PACKED = 8
"""A local Parquet file of less than this fraction of a part is not looked into: there may be thousands."""

_MOST_PARTS = 1024
"""A task for each part of a file costs some ms."""

_BLOCK, _BEGINNING_BYTES = 4 << 20, 4096
_LINE_FEED = ord("\n")
_WHITE_SPACE = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))


class Part(NamedTuple):
    """Successive rows of a file."""

    start: ReadPosition
    rows: int | None = None
    """None: all there are."""


def parts_of(path: str, start: ReadPosition, limit: int | None, reading: Reading, largest_cell: int) -> list[Part]:
    """Returns the parts of a file from `start` on, of which the last goes on to its end.

    Their tables are those that `read_rows` yields from `start` on. No more is looked at than `limit` rows need.
    """
    whole = [Part(start)]
    if not reading.of.one_row or (limit is not None and limit <= 0):
        return whole
    place = path_of(path)
    if path.lower().endswith(".parquet"):
        if isinstance(place, Path) and place.stat().st_size < PART_BYTES // _LEAST_PACKED:
            return whole
        return _joined(start, _row_groups(path, start), limit)
    if not isinstance(place, Path) or path.lower().endswith((".gz", ".zst")) or file_format(path) != "jsonl":
        return whole
    size = place.stat().st_size - start.at
    if size <= PART_BYTES or raw.is_array(path):
        return whole
    direct = raw.is_direct(path, reading)
    least = max(PART_BYTES, size // _MOST_PARTS)
    return _joined(start, _tables(place, start, direct, largest_cell, least), limit)


def _joined(start: ReadPosition, ends: Iterator[ReadPosition], limit: int | None) -> list[Part]:
    """Returns the parts between `ends`, where the next part may begin."""
    starts = [start]
    for end in ends:
        if limit is not None and end.row - start.row >= limit:
            break
        starts.append(end)
    return [*(Part(here, after.row - here.row) for here, after in pairwise(starts)), Part(starts[-1])]


def _row_groups(path: str, start: ReadPosition) -> Iterator[ReadPosition]:
    with arrow_input(path_of(path)) as source:
        metadata = opened(path, source).metadata
        row, size, rows = start.row, 0, 0
        for group in range(start.at, metadata.num_row_groups - 1):
            size += metadata.row_group(group).total_byte_size
            rows += metadata.row_group(group).num_rows
            if rows and size >= PART_BYTES:
                row, size, rows = row + rows, 0, 0
                yield ReadPosition(group + 1, row)


def _tables(path: Path, start: ReadPosition, direct: bool, largest_cell: int, least: int) -> Iterator[ReadPosition]:
    """Yields ends of tables of JSON Lines, `least` bytes and one row apart, and before the end of the file."""
    most_rows, most_bytes = json_lines.batch_limits() if direct else raw.batch_limits()
    size = path.stat().st_size
    part = begin = start  # of the part, and of the table
    row = start.row
    with path.open("rb") as stream:
        for ends, records in _lines(stream, start.at, json_lines.LARGEST_CELLS * largest_cell):
            rows = row + np.cumsum(records)
            while True:
                place = min(
                    int(np.searchsorted(rows, begin.row + most_rows)), int(np.searchsorted(ends, begin.at + most_bytes))
                )
                if place == len(ends):
                    break
                begin = ReadPosition(int(ends[place]), int(rows[place]))
                if begin.at - part.at >= least and begin.row > part.row and begin.at < size:
                    part = begin
                    yield part
            row = int(rows[-1])


def _lines(stream: BinaryIO, at: int, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the ends of successive lines from byte `at` on, int64, and which of them are records, bool.

    A line of white space is none, unless it has more than `most` bytes.
    """
    begin = position = at
    stream.seek(at)
    while block := stream.read(_BLOCK):
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == _LINE_FEED) + (position + 1)
        if len(ends):
            begins = np.concatenate([[begin], ends[:-1]])
            doubtful = _WHITE_SPACE[data[np.maximum(begins - position, 0)]]
            doubtful[0] = True  # its beginning may be in an earlier block, or a byte order mark
            records = np.ones(len(ends), bool)
            for place in np.flatnonzero(doubtful).tolist():
                records[place] = _is_record(stream, int(begins[place]), int(ends[place]), most)
            yield ends, records
            begin = int(ends[-1])
        position += len(block)
        stream.seek(position)
    if begin < position:
        yield np.array([position]), np.array([_is_record(stream, begin, position, most)])


def _is_record(stream: BinaryIO, begin: int, end: int, most: int) -> bool:
    """Returns whether a line is more than white space, or too long to be looked at."""
    if end - begin > most:
        return True
    stream.seek(begin)
    if begin == 0 and stream.read(len(json_lines.BYTE_ORDER_MARK)) != json_lines.BYTE_ORDER_MARK:
        stream.seek(begin)
    size = _BEGINNING_BYTES
    while piece := stream.read(min(size, end - stream.tell())):
        if piece.strip():
            return True
        size = _BLOCK
    return False
