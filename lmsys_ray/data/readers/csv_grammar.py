"""The grammar of CSV, one record at a time, as Python's `csv` reads it when it is not strict.

A cell that begins with a quote ends with the next quote that is not doubled; text after it, up to a comma or the end of
the line, is a fault, as is a quote that never closes. Other quotes are text. A line feed outside quotes ends a record,
with the carriage returns before it; other carriage returns are text, as older pandas and Python's `csv` write them.
"""

import re
from typing import NamedTuple

from lmsys_ray.data.readers.windows import BLOCK, Window

NEVER_CLOSED = "a quote is opened and never closed"
TEXT_BEHIND = "text follows a closing quote"
RETURN = "a carriage return stands outside quotes"  # where pandas and Python's csv would read a line end

QUOTE, COMMA, LINE_FEED, CARRIAGE_RETURN = b'",\n\r'

COUNTED = 1000
"""How many cells beyond those of the header are counted; a longer record is hardly a row."""

# Possessive quantifiers, so that matching takes no memory.
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+')
_BLANK = re.compile(rb"(?:\r*+\n)*+")
_PLAIN = re.compile(rb"[^,\r\n]*+(?:\r++(?!\n)[^,\r\n]*+)*+")
# Whole cells, each with the comma after it.
_CELLS = re.compile(rb'(?:(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^,\r\n]*+(?:\r++(?!\n)[^,\r\n]*+)*+,)*+')


class Span(NamedTuple):
    """A quoted cell that contains a line feed."""

    cell: int
    """The number of cells before it."""
    opened: int
    """The offset of its opening quote."""
    closed: int
    """The offset of its closing quote."""


class Record(NamedTuple):
    """A record in a text."""

    end: int
    """The offset after its last line feed."""
    cells: list[bytes]
    """Its cells, at most as many as requested; a damaged one as written, with its quotes."""
    number: int
    """The number of its cells, counted up to those requested + 1000."""
    fault: str | None
    """Why a strict reader would refuse it, if it would."""
    spans: list[Span]
    loose: bool
    """Whether a cell that does not begin with a quote contains one."""
    returns: bool
    """Whether there is a carriage return outside quotes that does not end a line."""
    quoted_end: bool
    """Whether its last cell is quoted."""

    @property
    def is_blank(self) -> bool:
        """Whether the record is an empty line."""
        return self.number == 1 and not self.cells[0] and not self.quoted_end


class Unfinished(NamedTuple):
    """A record at whose inside the text ends, or that is not read further because a cell is too large."""

    cells: list[bytes]
    """The cells before that one, at most as many as requested."""
    number: int
    """The number of cells before it."""
    begin: int
    """The offset of that cell."""
    quoted: bool
    """Whether it is quoted."""
    size: int
    """The bytes of its text so far."""


def record_at(data: bytes, start: int, width: int, largest_cell: int | None = None) -> Record | Unfinished:
    """Returns the record at offset `start`, with its first `width` cells."""
    cells: list[bytes] = []
    number, at = 0, start
    fault, spans, loose, returns = None, [], False, False
    while True:
        quoted = data[at : at + 1] == b'"'
        after = at
        if quoted:
            closed = _end(_QUOTED, data, at + 1)
            if closed + 1 >= len(data):  # more text might begin with a second quote
                return Unfinished(cells, number, at, True, closed - at - 1 - data.count(b'""', at + 1, closed))
            after = closed + 1
            if data.find(b"\n", at, closed) >= 0:
                spans.append(Span(number, at, closed))
        end = _end(_PLAIN, data, after)
        if end >= len(data):
            return Unfinished(cells, number, at, quoted, end - at)
        value = data[after:end]
        if quoted:
            fault = fault or (TEXT_BEHIND if value else None)
            value = data[at:end] if value else data[at + 1 : closed].replace(b'""', b'"')
        else:
            loose, returns = loose or b'"' in value, returns or b"\r" in value
        if largest_cell is not None and len(value) > largest_cell:
            return Unfinished(cells, number, at, quoted, len(value))
        number += 1
        if len(cells) < width:
            cells.append(value)
        if data[end] != COMMA:
            return Record(data.index(b"\n", end) + 1, cells, number, fault, spans, loose, returns, quoted)
        at = end + 1
        if number == width + COUNTED - 1:
            at = _end(_CELLS, data, at)


def skip_record(window: Window) -> int:
    """Moves a window past the record at which it stands; returns the number of line feeds skipped.

    Takes no more memory than a few blocks beyond those in the window.
    """
    feeds, at = 0, 0
    inside: bool | None = None  # inside quotes, or not; None: at the beginning of a cell
    while True:
        data = window.data
        while at < len(data):
            if inside is None:
                at = _end(_CELLS, data, at)
                inside = data[at : at + 1] == b'"' if at < len(data) else None
                at += bool(inside)
            elif inside:
                at = _end(_QUOTED, data, at)
                if at + 1 >= len(data):  # more text might begin with a second quote
                    break
                at, inside = at + 1, False
            else:
                at = _end(_PLAIN, data, at)
                if at < len(data) and data[at] != COMMA:
                    at = data.index(b"\n", at) + 1
                    window.skip(at)
                    return feeds + data.count(b"\n", 0, at)
                at, inside = (at + 1, None) if at < len(data) else (at, False)
        if window.ended:
            window.skip(len(data))
            return feeds + data.count(b"\n")
        feeds += data.count(b"\n", 0, at)
        window.skip(at)
        window.fill(len(window.data) + BLOCK)
        at = 0


def blank_end(data: bytes, at: int) -> int:
    """Returns the offset after the blank lines at an offset."""
    return _end(_BLANK, data, at)


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    assert match is not None  # all of them match the empty text
    return match.end()
