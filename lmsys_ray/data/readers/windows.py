"""A window on a stream of bytes: the part that is needed at once, and its position."""

from typing import BinaryIO

BLOCK = 2 << 20
"""The number of bytes that are read at once, small enough for the results to stay in a processor's cache."""


class Window:
    """The unread part of a stream, from byte `position` of it on."""

    def __init__(self, stream: BinaryIO, position: int = 0) -> None:
        stream.seek(position)
        self._stream = stream
        self.position = position
        self.data = b""
        self.ended = False
        """Whether `data` reaches the end of the stream. A last line without a line feed gets one."""

    def fill(self, size: int) -> bool:
        """Reads until `data` has `size` bytes or the stream ends; returns whether there are any."""
        parts, missing = [self.data], size - len(self.data)
        while missing > 0 and not self.ended:
            parts.append(self._stream.read(missing))
            missing -= len(parts[-1])
            self.ended = not parts[-1]
        if len(parts) > 1:
            self.data = b"".join(parts)
            if self.ended and self.data and not self.data.endswith(b"\n"):
                self.data += b"\n"
        return bool(self.data)

    def reaches_beyond(self, size: int) -> bool:
        """Returns whether there may be more than `size` bytes ahead."""
        return len(self.data) > size or not self.ended

    def skip(self, size: int) -> None:
        """Moves forward by `size` bytes of `data`."""
        self.data = self.data[size:]
        self.position += size
