"""CSV at speed: well-formed stretches are parsed by Arrow at once, all others record by record.

Both read the same grammar (see `csv_records`). A stretch is well-formed where quotes stand only around cells and,
doubled, within them, and every carriage return outside quotes ends a line; in such text a line feed ends a record where
the number of quotes before it is even. Since a record always begins at the beginning of a line, either way of reading
can take over from the other there.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from lmsys_ray.errors import UsageError
from lmsys_ray.readers.csv_records import LARGEST_CELL, BrokenRecord, CsvRecords
from lmsys_ray.readers.files import missing_columns, open_bytes
from lmsys_ray.readers.records import Records, plain_id, text_columns
from lmsys_ray.readers.windows import BLOCK, Window

_CAREFUL_BYTES = 256 << 10
"""Bytes that are read record by record behind a damaged one, before the fast way is tried again."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _COMMA, _LINE_FEED, _CARRIAGE_RETURN = b'",\n\r'


def read_csv(path: str, columns: Sequence[str], at: int) -> Iterator[Records]:
    """Yields the records from byte `at` on; raises `UsageError` where the header lacks one of `columns`."""
    with open_bytes(path) as stream:
        window = Window(stream)
        window.fill(BLOCK)
        header = _header(path, window, columns)
        if at:
            window = Window(stream, at)
        yield from _Table(header, columns).records(window)


def _header(path: str, window: Window, columns: Sequence[str]) -> list[str]:
    records = CsvRecords(window.lines())
    header = next(records, None)
    if header is None:
        raise UsageError(f"input: {path} is empty; its first line must name the columns {', '.join(columns)}")
    if isinstance(header, BrokenRecord):
        raise UsageError(f"input: {path} has a broken header: {header.reason}")
    header[0] = header[0].removeprefix("\ufeff").strip('"')
    if set(columns) - set(header):
        raise missing_columns(path, columns, header)
    window.skip(records.bytes_taken)
    return header


class _Table:
    """What a file's header says about its records: how many cells they have, and which of them are asked for."""

    def __init__(self, header: list[str], columns: Sequence[str]) -> None:
        self._width = len(header)
        self._places = [header.index(name) for name in columns]
        self._id_first = header[0] == "id"

    def records(self, window: Window) -> Iterator[Records]:
        """Yields the records ahead; where each `Records` ends follows from where it begins, whatever came before."""
        size = BLOCK
        while window.fill(size):
            text = window.data[:size]
            stretch = well_formed(text)
            if not stretch.end and stretch.sound and window.reaches_beyond(size) and size < LARGEST_CELL:
                size *= 2  # a record that is longer than the text
                continue
            size = BLOCK
            yield self._parsed(window, stretch.end) or self._read_carefully(window, max(stretch.end, _CAREFUL_BYTES))

    def _parsed(self, window: Window, end: int) -> Records | None:
        """Takes `end` bytes of well-formed records, unless there are none or one has too many or too few cells."""
        names = [str(place) for place in range(self._width)]
        asked = [names[place] for place in self._places]
        # Arrow would drop a byte order mark at the beginning of any text.
        if not end or window.data.startswith(_BYTE_ORDER_MARK):
            return None
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(pa.py_buffer(window.data).slice(0, end)),
                arrow_csv.ReadOptions(column_names=names, block_size=end + 1, use_threads=False),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=asked, column_types=dict.fromkeys(names, pa.binary())
                ),
            )
        except pa.ArrowInvalid:  # a record has another number of cells, or all lines are blank
            return None
        records = Records(window.position, [table[name].combine_chunks() for name in asked])
        window.skip(end)
        return records

    def _read_carefully(self, window: Window, least: int) -> Records:
        """Takes whole records of `least` bytes together, or all there are."""
        records = CsvRecords(window.lines())
        rows: list[list[str | None]] = []
        faults: dict[int, str] = {}
        for record in records:
            if isinstance(record, BrokenRecord):
                faults[len(rows)] = record.reason
                rows.append(self._only_id(record.first_cell))
            elif len(record) != self._width:
                faults[len(rows)] = f"has {len(record)} cells where the header names {self._width}"
                rows.append(self._only_id(record[0]))
            else:
                rows.append([record[place] for place in self._places])
            if records.bytes_taken >= least:
                break
        found = Records(window.position, text_columns(rows, len(self._places), "surrogateescape"), faults)
        window.skip(records.bytes_taken)
        return found

    def _only_id(self, first_cell: str) -> list[str | None]:
        """The values of a damaged record, whose id is safe to tell only where it stands before the damage."""
        identity = plain_id(first_cell) if self._id_first else None
        return [identity, *[None] * (len(self._places) - 1)]


class Stretch(NamedTuple):
    """How much of a text, from its beginning on, is well-formed."""

    end: int
    """Bytes of whole records."""
    sound: bool
    """Whether nothing behind them is malformed, so that more text may make them longer."""


def well_formed(text: bytes) -> Stretch:
    """Returns the longest stretch of whole, well-formed records that a CSV text begins with."""
    data = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)
    # If all is well the quotes open and close in turn. A doubled one within a cell closes it and opens it again.
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, data[opening - 1], _LINE_FEED)
    after = data[np.minimum(closing + 1, len(data) - 1)]
    faults = [
        opening[(before != _COMMA) & (before != _LINE_FEED) & (before != _QUOTE)],
        closing[(after != _COMMA) & (after != _LINE_FEED) & (after != _QUOTE) & (after != _CARRIAGE_RETURN)],
    ]
    if b"\r" in text:
        returns = np.flatnonzero(data == _CARRIAGE_RETURN)
        outside = returns[np.searchsorted(quotes, returns) % 2 == 0]
        faults.append(outside[data[np.minimum(outside + 1, len(data) - 1)] != _LINE_FEED])
    first_fault = min((int(places[0]) for places in faults if len(places)), default=len(text))
    feeds = np.flatnonzero(data[:first_fault] == _LINE_FEED)
    ends = feeds[np.searchsorted(quotes, feeds) % 2 == 0]
    return Stretch(int(ends[-1]) + 1 if len(ends) else 0, first_fault == len(text))
