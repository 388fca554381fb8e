"""A CSV reader that loses nothing: a damaged record costs itself, and reading goes on at the next line.

The grammar is RFC 4180, as Python's `csv` module reads it in strict mode: cells may hold newlines within quotes. What
strict mode refuses (a quote that never closes, text after a closing quote) is given up one physical line at a time, so
that an unclosed quote does not swallow the rows below it.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LARGEST_CELL = 1 << 28
"""Characters that a cell may have; a quote that stays open for longer is taken for a broken one."""

_REASONS = {
    "unexpected end of data": "a quote is opened and never closed",
    "expected after": "text follows a closing quote",
    "field larger than": f"a cell is longer than {LARGEST_CELL:,} characters",
    "new-line character": "a carriage return stands outside quotes",
}


@dataclass(frozen=True)
class BrokenRecord:
    """A line that is the beginning of no record: why, and the text before its first comma."""

    reason: str
    first_cell: str


class _Lines:
    """An iterator over lines that remembers those of the current record and takes lines back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self.record: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.record.append(line)
        return line

    def give_back_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self.record[1:]))


def csv_records(lines: Iterable[str]) -> Iterator[list[str] | BrokenRecord]:
    """Yields each record as its cells, or what is known of the line that begins none.

    Blank lines are passed over.
    """
    csv.field_size_limit(LARGEST_CELL)
    source = _Lines(lines)
    reader = csv.reader(source, strict=True)
    while True:
        source.record.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            source.give_back_all_but_first()
            reader = csv.reader(source, strict=True)
            yield BrokenRecord(_reason(str(error)), source.record[0].split(",", 1)[0])
            continue
        if cells:
            yield cells


def _reason(message: str) -> str:
    return next((reason for fragment, reason in _REASONS.items() if fragment in message), message)
