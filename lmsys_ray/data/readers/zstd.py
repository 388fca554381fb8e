"""Reads text that is compressed with zstd."""

import io
from typing import Any, BinaryIO, cast

import pyarrow as pa

_BUFFER = 1 << 20


def open_zstd(file: BinaryIO) -> BinaryIO:
    """Returns the unpacked text of a file, seekable: forward by reading, backward by starting again.

    Reading raises `EOFError` where the stream is damaged or truncated.
    """
    return cast(BinaryIO, io.BufferedReader(_Unpacked(file), _BUFFER))


class _KeptOpen:
    """A file that Arrow does not close when it lets go of it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read

    def close(self) -> None:
        pass


class _Unpacked(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._stream = pa.CompressedInputStream(pa.PythonFile(_KeptOpen(self._file), "r"), "zstd")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        if offset < self._position:
            self._restart()
        while self._position < offset and self._read(min(_BUFFER, offset - self._position)):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            raise EOFError(str(error)) from None
        self._position += len(data)
        return data
