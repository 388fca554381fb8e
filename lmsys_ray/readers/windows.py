"""A window on a stream of bytes: as much of it as is needed at once, and where it stands."""

from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 2 << 20
"""Bytes that are read at once: small enough for what is made of them to stay in a processor's cache."""


class Window:
    """The unread part of a stream, beginning at byte `position` of it."""

    def __init__(self, stream: BinaryIO, position: int = 0) -> None:
        stream.seek(position)
        self._stream = stream
        self.position = position
        self.data = b""
        self.ended = False
        """Whether `data` reaches to the end of the stream. A last line without its line feed is given one."""

    def fill(self, size: int) -> bool:
        """Reads until `data` has `size` bytes or the stream ends; returns whether there are any."""
        while len(self.data) < size and not self.ended:
            more = self._stream.read(size - len(self.data))
            if not more:
                self.ended = True
                more = b"\n" if self.data and not self.data.endswith(b"\n") else b""
            self.data += more
        return bool(self.data)

    def reaches_beyond(self, size: int) -> bool:
        """Whether there may be more ahead than `size` bytes."""
        return len(self.data) > size or not self.ended

    def skip(self, size: int) -> None:
        """Moves on by `size` bytes of `data`."""
        self.data = self.data[size:]
        self.position += size

    def lines(self) -> Iterator[str]:
        """Yields the lines ahead, without moving on; bytes that are no UTF-8 become lone surrogates."""
        start = 0
        while True:
            end = self._line_end(start)
            if end == start:
                return
            yield self.data[start:end].decode("utf-8", "surrogateescape")
            start = end

    def _line_end(self, start: int) -> int:
        searched = start
        while (newline := self.data.find(b"\n", searched)) < 0 and not self.ended:
            searched = len(self.data)
            self.fill(max(2 * len(self.data), BLOCK))
        return newline + 1 or len(self.data)
