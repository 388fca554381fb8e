"""Reads a JSON array of objects, a few MB at a time."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from lmsys_ray.data.readers.json_lines import BYTE_ORDER_MARK, DECODER, LARGEST_CELLS, KeysTwice
from lmsys_ray.data.schemas.row import RawRecords, Record, Refused
from lmsys_ray.errors import RunError, first_line

_BLOCK = 2 << 20
_BATCH_ROWS = 512
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")
_AFTER = tuple(" \t\r\n,]")
_BETWEEN = re.compile(r"[\s,]*")
_END = re.compile(r"\s*\]\s*\Z")


def begins_array(stream: BinaryIO) -> bool:
    """Returns whether a stream begins with a JSON array; leaves it at its beginning."""
    stream.seek(0)
    head = stream.read(4096)
    stream.seek(0)
    return _HEAD.match(head) is not None


def read_json_array(path: str, stream: BinaryIO, at: int, largest_cell: int) -> Iterator[RawRecords]:
    """Yields the objects of an array from byte `at` on, which is 0 or where an earlier batch began.

    Raises `RunError` where the array is damaged, or an object is too large.
    """
    text = _Text(stream, at)
    row = 0
    while True:
        position, begin = text.position, text.place
        records: list[Record | Refused] = []
        while len(records) < _BATCH_ROWS and text.place - begin < _BLOCK and not text.at_end():
            records.append(_next(path, text, LARGEST_CELLS * largest_cell, row + len(records)))
        if not records:
            return
        row += len(records)
        yield RawRecords(position, records)
        text.forget()


def _next(path: str, text: _Text, most: int, row: int) -> Record | Refused:
    while True:
        try:
            found, end = DECODER.raw_decode(text.text, text.place)
        except RecursionError:
            raise RunError(f"{path} is JSON nested too deeply after row {row}") from None
        except ValueError as error:
            if len(text.text) - text.place > most or not text.more():
                raise RunError(
                    f"{path} is damaged after {row} rows of its array: {first_line(error, 80)}; mend it, or write one "
                    "object a line (.jsonl), so that a damaged one costs no other"
                ) from None
            continue
        if text.text[end : end + 1] in _AFTER or not text.more():  # else a number may go on
            text.place = end
            break
    if isinstance(found, KeysTwice):
        return Refused(f"names the key {min(found.twice)} twice")
    return found if isinstance(found, dict) else Refused("is JSON but no object")


class _Text:
    """The unread part of an array as text, and where in the file it begins."""

    def __init__(self, stream: BinaryIO, at: int) -> None:
        stream.seek(at)
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.position = at
        """The byte at which `text` begins."""
        self.text = ""
        self.place = 0
        self._ended = False
        if at == 0:
            while "[" not in self.text and self.more():
                pass
            mark = BYTE_ORDER_MARK.decode()
            self.place = self.text.index("[", len(mark) if self.text.startswith(mark) else 0) + 1

    def more(self) -> bool:
        """Reads more; returns whether there was any."""
        if self._ended:
            return False
        data = self._stream.read(_BLOCK)
        self._ended = not data
        try:
            self.text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise RunError(
                f"{self._stream.name} is not valid UTF-8 (byte 0x{error.object[error.start]:02x}); convert it"
            ) from None
        return bool(data)

    def at_end(self) -> bool:
        """Moves to the next value; returns whether the array ends before it."""
        while True:
            match = _BETWEEN.match(self.text, self.place)
            assert match
            if match.end() < len(self.text) or not self.more():
                self.place = match.end()
                break
        return self.place >= len(self.text) or self.text[self.place] == "]"

    def forget(self) -> None:
        """Drops what was read."""
        self.position += len(self.text[: self.place].encode("utf-8"))
        self.text, self.place = self.text[self.place :], 0
