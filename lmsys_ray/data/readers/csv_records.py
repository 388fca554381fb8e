"""CSV record by record, including damaged ones: no row is invented, and none is lost silently.

A record extends as far as Python's `csv` reads it when it is not strict. Where a strict reader would refuse it, or it
has several lines but not the cells of the header, it is one reject that names its lines; `CsvRecords` says how far it
extends.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lmsys_ray.data.readers.csv_grammar import (
    COUNTED,
    NEVER_CLOSED,
    RETURN,
    Record,
    Span,
    Unfinished,
    blank_end,
    record_at,
    skip_record,
)
from lmsys_ray.data.readers.records import too_large
from lmsys_ray.data.readers.row_shape import RowShape
from lmsys_ray.data.readers.windows import BLOCK, Window

HELD = 8 << 20
"""The number of bytes that a record may have, however small the limit of a cell is."""

_LOOKED_AHEAD = 64 << 10
"""The number of bytes after a damaged record in which the next one is looked for."""

_VOTING_LINES = 1000
"""The number of lines after a quote that never closes that decide whether they are rows."""


class ParsedRecord(NamedTuple):
    """A valid record, or a fault, at one place in a file."""

    cells: list[bytes]
    """All cells of a valid record; of a damaged one those that are known."""
    fault: str | None
    first: int
    """Its first line, counted from 0 at the beginning of the reading."""
    lines: int
    """The number of its lines."""
    inner: Sequence[int]
    """The lines inside its quotes that look like rows, counted likewise."""


class CsvRecords:
    """Iterates over the records in a window, without moving it unless a record is too long to be held.

    A damaged record gives back the rows that a stray quote swallowed, if its lines from some line on are rows by
    themselves, of which the last is well-formed, or the line that opens the quote is as wide as a row without it; a row
    or the end must follow. Otherwise what follows belongs to it up to the first line that begins like a row, if a
    damaged cell may continue there. A quote that never closes, or not within the largest cell, costs only its own line
    where at least half of the lines after it are as wide as rows; else the cell is truncated, or too large.

    A row by itself has the cells of the header and an id of the file's kind. Such lines inside a cell of a valid record
    are only a warning. Blank lines are skipped.
    """

    def __init__(self, window: Window, shape: RowShape, columns: list[str], largest_cell: int) -> None:
        self._window = window
        self._shape = shape
        self._columns = columns
        self._largest_cell = largest_cell
        self._held = max(largest_cell, HELD)
        self._far_too_wide = f"has {COUNTED} cells or more beyond the {shape.width} that the header names"
        self.at = 0
        """The offset in the window of the next record."""
        self.lines = 0
        """The number of lines passed."""

    def __iter__(self) -> Iterator[ParsedRecord]:
        return self

    def __next__(self) -> ParsedRecord:
        while self._has(1):
            record = self._record(self.at)
            if isinstance(record, Unfinished):
                return self._unfinished(record)
            if record.end - self.at > self._max_bytes(record.number):
                return self._skip(record.cells, self._too_long(record.number))
            if record.is_blank:
                self._consume(record.end, [], None)
            else:
                return self._found(record)
        raise StopIteration

    def _found(self, record: Record) -> ParsedRecord:
        if not record.fault and record.number == self._shape.width:
            inner = self._inner(record)
            return self._consume(record.end, record.cells, None, inner)
        fault = record.fault or self._misfit(record)
        end, several = record.end, len(record.spans) > 0
        if several:
            end = self._swallowed(record) or end
        if end == record.end and self._shape.is_damaged(record):
            end = self._next_row(end) or end
        return self._consume(end, record.cells, fault)

    def _misfit(self, record: Record) -> str:
        if record.returns:
            return RETURN
        if record.number >= self._shape.width + COUNTED - 1:
            return self._far_too_wide
        return f"has {record.number} cells where the header names {self._shape.width}"

    def _record(self, at: int) -> Record | Unfinished:
        """Returns the record at an offset; an unfinished one if a cell or the record is too large, or the text ends."""
        window = self._window
        while True:
            found = record_at(window.data, at, self._shape.width, self._held)
            have = len(window.data)
            if (
                isinstance(found, Record)
                or window.ended
                or found.size > self._held
                or have - at > self._max_bytes(found.number)
            ):
                return found
            window.fill(have + max(BLOCK, min(have - at, self._held + BLOCK - found.size)))

    def _unfinished(self, record: Unfinished) -> ParsedRecord:
        """Returns the fault of a record whose quote is open to the end, or that is too large."""
        data, large = self._window.data, record.size > self._held
        never_closes = not large and self._window.ended
        if record.quoted and (large or never_closes):
            line_end = data.find(b"\n", record.begin) + 1 or len(data)
            end = record.begin + self._held if large else len(data)
            if self._rows_follow(record, line_end, end):
                return self._consume(line_end, record.cells, NEVER_CLOSED)
        if never_closes:
            first = self._first_row(len(data.rstrip(b"\r\n")) + 1)
            return self._consume(first or len(data), record.cells, NEVER_CLOSED)
        fault = self._too_long(record.number)
        if large:
            fault = too_large(self._columns[min(record.number, len(self._columns) - 1)], self._largest_cell)
        return self._skip(record.cells, fault)

    def _max_bytes(self, number: int) -> int:
        """Returns how many bytes a record with a number of cells may have; one with far too many is not held."""
        return HELD if number >= self._shape.width + COUNTED - 1 else 4 * self._held

    def _too_long(self, number: int) -> str:
        if number >= self._shape.width + COUNTED - 1:
            return self._far_too_wide
        return f"has more than {4 * self._held} bytes in all, four times what its largest cell may have"

    def _skip(self, cells: list[bytes], fault: str) -> ParsedRecord:
        self._window.skip(self.at)
        self.at, first = 0, self.lines
        self.lines += skip_record(self._window)
        return ParsedRecord(cells, fault, first, self.lines - first, ())

    def _rows_follow(self, record: Unfinished, line_end: int, end: int) -> bool:
        """Returns whether at least half of the lines after an open quote are as wide as rows, or there are none."""
        data, width, at = self._window.data, self._shape.width, line_end
        wide = [record.number + 1 + data.count(b",", record.begin, line_end) == width]
        while len(wide) <= _VOTING_LINES and (line_end := data.find(b"\n", at, end) + 1):
            line = record_at(data[at:line_end], 0, width)
            if not isinstance(line, Record) or not line.is_blank:
                wide.append(isinstance(line, Record) and line.number == width)
            at = line_end
        return 2 * sum(wide) >= len(wide) if len(wide) > 1 else end == len(data)

    def _swallowed(self, record: Record) -> int | None:
        """Returns the offset from which the lines of a record are rows; None where they are not."""
        last = self._line(record.end - 1)
        tail = self._record(last)
        data = self._window.data
        clean = isinstance(tail, Record) and self._shape.is_whole(tail) and not tail.loose
        if not clean and not self._shape.is_row(data[last : record.end].replace(b'"', b"'")):
            return None
        first = self._first_row(last) or last
        if not clean and not any(self._is_wide(span, first) for span in record.spans):
            return None
        return first if self._row_or_end(tail.end if clean and isinstance(tail, Record) else record.end) else None

    def _first_row(self, end: int) -> int | None:
        """Returns the offset from which all lines of a record after its first, up to `end`, are rows."""
        first = end
        while (above := self._line(first - 1)) > self.at and self._shape.is_row(self._window.data[above:first]):
            first = above
        return first if first < end else None

    def _is_wide(self, span: Span, below: int) -> bool:
        """Returns whether the line above the offset `below` is as wide as a row if the span's opening quote is text."""
        opened_there = self._line(below - 1) <= span.opened < below
        return opened_there and span.cell + 1 + self._window.data.count(b",", span.opened, below) == self._shape.width

    def _line(self, at: int) -> int:
        """Returns the offset at which the line of a byte begins."""
        return self._window.data.rfind(b"\n", 0, at) + 1

    def _row_or_end(self, at: int) -> bool:
        """Returns whether a row seems to begin at an offset, or the text ends there."""
        return self._next_row(at) == at

    def _next_row(self, end: int) -> int | None:
        """Returns the offset from `end` at which a row seems to begin, or the text ends; None where neither is near."""
        self._has(end - self.at + _LOOKED_AHEAD)
        text = self._window.data[end : end + _LOOKED_AHEAD]
        at = 0
        while at < len(text):
            begin = blank_end(text, at)
            if begin == len(text) or self._shape.begins(text, begin):
                break
            at = text.find(b"\n", begin) + 1 or len(text)
        return end + at if at < len(text) or len(text) < _LOOKED_AHEAD else None

    def _inner(self, record: Record) -> list[int]:
        """Returns the lines inside the quotes of a record that look like rows."""
        data, found = self._window.data, []
        for span in record.spans:
            at = data.find(b"\n", span.opened) + 1
            while 0 < at <= span.closed:
                end = data.find(b"\n", at) + 1
                if self._shape.looks_like_row(data[at:end]):
                    found.append(self.lines + data.count(b"\n", self.at, at))
                at = end
        return found

    def _has(self, size: int) -> bool:
        """Reads until `size` bytes, or all, are ahead; returns whether there are any."""
        if len(self._window.data) < self.at + size:
            self._window.fill(self.at + size + BLOCK)
        return len(self._window.data) > self.at

    def _consume(self, end: int, cells: list[bytes], fault: str | None, inner: Sequence[int] = ()) -> ParsedRecord:
        first = self.lines
        self.lines += self._window.data.count(b"\n", self.at, end)
        self.at = end
        return ParsedRecord(cells, fault, first, self.lines - first, inner)


def csv_records(window: Window, header: list[str], largest_cell: int) -> Iterator[ParsedRecord]:
    """Yields the records in a window after the header, and moves the window."""
    window.fill(BLOCK)
    shape = RowShape(header, window.data[:BLOCK])
    while window.fill(BLOCK):
        records = CsvRecords(window, shape, header, largest_cell)
        for found in records:
            yield found
            if records.at >= BLOCK:
                break
        window.skip(records.at)
