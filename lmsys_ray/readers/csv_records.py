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
        del self.record[1:]


class CsvRecords:
    """Iterates over the records of `lines`: each as its cells, or what is known of the line that begins none.

    Blank lines are passed over.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        csv.field_size_limit(LARGEST_CELL)
        self._source = _Lines(lines)
        self._reader = csv.reader(self._source, strict=True)
        self.bytes_taken = 0
        """UTF-8 bytes of the lines that the records so far stood in."""

    def __iter__(self) -> Iterator[list[str] | BrokenRecord]:
        return self

    def __next__(self) -> list[str] | BrokenRecord:
        while True:
            self._source.record.clear()
            try:
                record: list[str] | BrokenRecord = next(self._reader)
            except csv.Error as error:
                self._source.give_back_all_but_first()
                self._reader = csv.reader(self._source, strict=True)
                record = BrokenRecord(_reason(str(error)), self._source.record[0].split(",", 1)[0])
            self.bytes_taken += sum(_utf8_bytes(line) for line in self._source.record)
            if record:
                return record


def csv_records(lines: Iterable[str]) -> Iterator[list[str] | BrokenRecord]:
    """Yields the records of `lines` as `CsvRecords` does, for those who need not know where they stand."""
    return CsvRecords(lines)


def _utf8_bytes(line: str) -> int:
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))


def _reason(message: str) -> str:
    return next((reason for fragment, reason in _REASONS.items() if fragment in message), message)
