"""Fast CSV: Arrow parses well-formed stretches at once, everything else is read record by record.

Both read the grammar of `csv_grammar` (and `csv_records`, for damage). In a well-formed stretch quotes stand only
around cells and, doubled, inside them, carriage returns outside quotes end lines, and no line inside quotes looks like
a row; a line feed after an even number of quotes ends a record, where either reader can take over. See docs/lab/csv.md.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from lmsys_ray.data.readers.csv_grammar import (
    CARRIAGE_RETURN,
    COMMA,
    LINE_FEED,
    NEVER_CLOSED,
    QUOTE,
    RETURN,
    Unfinished,
    blank_end,
    record_at,
)
from lmsys_ray.data.readers.csv_records import HELD, CsvRecords, ParsedRecord
from lmsys_ray.data.readers.files import check_names, open_bytes
from lmsys_ray.data.readers.records import Records, plain_id
from lmsys_ray.data.readers.row_shape import RowShape
from lmsys_ray.data.readers.windows import BLOCK, Window
from lmsys_ray.errors import UsageError

_CAREFUL_BYTES = 256 << 10
"""Bytes that are read record by record after a damaged one, before the fast way is tried again."""

_RETURNS = f"{RETURN}; end its lines with line feeds"

_FEW_LINES = 400
"""Up to this many lines are checked one by one, rather than by counting all commas."""

_MOST_COLUMNS = 10_000

_HEAD_BYTES = 1 << 20
"""Bytes at the beginning of a file for its header and enough rows to see what ids look like."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_csv(path: str, columns: Sequence[str], at: int, largest_cell: int) -> Iterator[Records]:
    """Yields the records from byte `at`; raises `UsageError` where the header lacks one of `columns`."""
    with open_bytes(path) as stream:
        window = Window(stream)
        header, lines = csv_header(f"input: {path}", window, columns)
        check_names(path, columns, header)
        table = _Table(path, columns, header, RowShape(header, window.data[:_HEAD_BYTES]), largest_cell)
        yield from table.records(Window(stream, at), None) if at else table.records(window, lines)


def csv_header(place: str, window: Window, columns: Sequence[str]) -> tuple[list[str], int]:
    """Returns the column names and how many lines they take; moves `window` past them.

    Raises `UsageError`, with a message that begins with `place`, where the first record is missing or broken.
    """
    window.fill(_HEAD_BYTES)
    header = record_at(window.data, blank_end(window.data, 0), _MOST_COLUMNS)
    if isinstance(header, Unfinished):
        if window.ended and not header.quoted:
            raise UsageError(f"{place} is empty; its first line must name the columns {', '.join(columns)}")
        long = _RETURNS if b"\r" in window.data else f"it goes on for more than {_HEAD_BYTES} bytes without a line feed"
        raise UsageError(f"{place} has a broken header: {NEVER_CLOSED if window.ended else long}")
    if header.fault or header.returns:
        raise UsageError(f"{place} has a broken header: {header.fault or _RETURNS}")
    names = [name.decode("utf-8", "surrogateescape") for name in header.cells]
    names[0] = names[0].removeprefix("\ufeff").strip('"')
    lines = window.data.count(b"\n", 0, header.end)
    window.skip(header.end)
    return names, lines


class _Table:
    """The rows of a file: how many cells they have, which of these are needed, and how large they may be."""

    def __init__(
        self, path: str, columns: Sequence[str], header: list[str], shape: RowShape, largest_cell: int
    ) -> None:
        self._path = path
        self._header = header
        self._places = [header.index(name) for name in columns]
        self._shape = shape
        self._largest_cell = largest_cell
        self._began = 0
        self._lines: int | None = None
        self._passed = 0

    def records(self, window: Window, lines: int | None) -> Iterator[Records]:
        """Yields the remaining records; where each `Records` ends depends only on where it begins.

        `lines` is the number of lines before the window, None if it is unknown.
        """
        self._began, self._lines, self._passed = window.position, lines, 0
        size = BLOCK
        while window.fill(size):
            text = window.data[:size]
            stretch = well_formed(text, self._shape)
            if not stretch.end and stretch.sound and window.reaches_beyond(size) and size < HELD:
                size *= 2  # a record that is longer than the text
                continue
            size = BLOCK
            yield self._parsed(window, stretch) or self._read_carefully(window, max(stretch.end, _CAREFUL_BYTES))

    def _parsed(self, window: Window, stretch: "Stretch") -> Records | None:
        """Takes a stretch of well-formed records; None if there are none, or if one has too many or too few cells."""
        names = [str(place) for place in range(len(self._header))]
        asked = [names[place] for place in self._places]
        # Arrow would drop a byte order mark at the beginning of any text.
        if not stretch.end or window.data.startswith(_BYTE_ORDER_MARK):
            return None
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(pa.py_buffer(window.data).slice(0, stretch.end)),
                arrow_csv.ReadOptions(column_names=names, block_size=stretch.end + 1, use_threads=False),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=asked, column_types=dict.fromkeys(names, pa.binary())
                ),
            )
        except pa.ArrowInvalid:  # a record has another number of cells, or all lines are blank
            return None
        records = Records(window.position, [table[name].combine_chunks() for name in asked])
        self._passed += stretch.lines
        window.skip(stretch.end)
        return records

    def _read_carefully(self, window: Window, least: int) -> Records:
        """Takes whole records of at least `least` bytes in total, or all there are."""
        begin = window.position
        records = CsvRecords(window, self._shape, self._header, self._largest_cell)
        rows: list[list[bytes | None]] = []
        faults: dict[int, str] = {}
        warnings: dict[int, str] = {}
        for found in records:
            if found.fault:
                lines = f"lines {self._named(found.first, found.first + found.lines - 1)}: " if found.lines > 1 else ""
                faults[len(rows)] = lines + found.fault
                rows.append(self._only_id(found))
            else:
                rows.append([found.cells[place] for place in self._places])
                if found.inner:
                    warnings[len(rows) - 1] = self._warning(found)
            if window.position + records.at - begin >= least:
                break
        self._passed += records.lines
        window.skip(records.at)
        columns = zip(*rows, strict=True) if rows else [()] * len(self._places)
        return Records(begin, [pa.array(column, pa.large_binary()) for column in columns], faults, warnings=warnings)

    def _only_id(self, found: ParsedRecord) -> list[bytes | None]:
        """Returns the values of a damaged record, whose id is certain only if it precedes the damage."""
        first = found.cells[0] if found.cells and self._header[0] == "id" else b""
        sure = plain_id(first.decode("utf-8", "surrogateescape")) is not None
        return [first if sure else None, *[None] * (len(self._places) - 1)]

    def _warning(self, found: ParsedRecord) -> str:
        lines = self._named(found.inner[0], found.inner[-1])
        looks = f"lines {lines} look like rows" if len(found.inner) > 1 else f"line {lines} looks like a row"
        return f"{looks} within its quotes; is one missing, or one too many, from line {self._named(found.first)} on?"

    def _named(self, first: int, last: int | None = None) -> str:
        """Returns the numbers in the file, from 1, of lines that are counted from where `CsvRecords` began."""
        if self._lines is None:
            self._lines = _lines_before(self._path, self._began)
        before = self._lines + self._passed + 1
        return f"{before + first}" if last in (None, first) else f"{before + first} to {before + last}"


def _lines_before(path: str, position: int) -> int:
    """Returns the number of line feeds in a file before a byte."""
    lines = 0
    with open_bytes(path) as stream:
        while position and (text := stream.read(min(position, BLOCK))):
            lines += text.count(b"\n")
            position -= len(text)
    return lines


class Stretch(NamedTuple):
    """How much of a text is well-formed, from its beginning."""

    end: int
    """The number of bytes of whole records."""
    lines: int
    """The number of line feeds in them."""
    sound: bool
    """Whether nothing after them is malformed, so that more text may extend the stretch."""


def well_formed(text: bytes, shape: RowShape) -> Stretch:
    """Returns the longest stretch of whole, well-formed records that a CSV text begins with."""
    data = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(data == QUOTE)
    # In valid text quotes open and close alternately. A doubled one inside a cell closes it and opens it again.
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening > 0, data[opening - 1], LINE_FEED)
    after = data[np.minimum(closing + 1, len(data) - 1)]
    faults = [
        opening[(before != COMMA) & (before != LINE_FEED) & (before != QUOTE)],
        closing[(after != COMMA) & (after != LINE_FEED) & (after != QUOTE) & (after != CARRIAGE_RETURN)],
    ]
    if b"\r" in text:
        returns = np.flatnonzero(data == CARRIAGE_RETURN)
        outside = returns[np.searchsorted(quotes, returns) % 2 == 0]
        faults.append(outside[data[np.minimum(outside + 1, len(data) - 1)] != LINE_FEED])
    first_fault = min((int(places[0]) for places in faults if len(places)), default=len(text))
    feeds = np.flatnonzero(data[:first_fault] == LINE_FEED)
    within = np.searchsorted(quotes, feeds) % 2 == 1
    ends = feeds[~within]
    row_within = _row_within(text, data, feeds, within, shape) if len(ends) < len(feeds) else None
    if row_within is not None:
        first_fault, ends = row_within, ends[: np.searchsorted(ends, row_within)]
    end = int(ends[-1]) + 1 if len(ends) else 0
    return Stretch(end, int(np.searchsorted(feeds, end)), first_fault == len(text))


def _row_within(text: bytes, data: np.ndarray, feeds: np.ndarray, within: np.ndarray, shape: RowShape) -> int | None:
    """Returns the beginning of the first line that looks like a row inside quotes; `within` says which feeds are."""
    begins = feeds[:-1] + 1
    likely = np.flatnonzero(within[:-1] & shape.may_begin(data, begins))
    begins, ends = begins[likely], feeds[likely + 1]
    if len(begins) > _FEW_LINES:
        commas = np.flatnonzero(data == COMMA)
        wide = np.searchsorted(commas, ends) - np.searchsorted(commas, begins) >= shape.width - 1
        begins, ends = begins[wide], ends[wide]
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        if shape.begins(text, begin) and shape.looks_like_row(text[begin : end + 1]):
            return begin
    return None
