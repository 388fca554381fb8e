"""Objects in storage, read in ranges."""

import io
import os
from typing import Any, BinaryIO, cast

from upath import UPath

from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.file_systems import load

_READ_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20
_READ_BLOCKS = 12
"""A file in storage is read in ranges of this many bytes, and this many ranges are kept: the columns of a Parquet file
are apart and are read by turns."""


def open_ranges(path: UPath) -> BinaryIO:
    """Opens an object for reading; it is seekable, ranges are fetched, and few are kept in memory."""
    return cast(BinaryIO, io.BufferedReader(_Ranges(path), _BUFFER_BYTES))


class _Ranges(io.RawIOBase):
    """An object in storage, read in ranges."""

    def __init__(self, path: UPath) -> None:
        self._path = path
        held = {"maxblocks": _READ_BLOCKS}
        with storage_errors(path, "read"):
            load(path.protocol)
            self._file = path.open("rb", block_size=_READ_BYTES, cache_type="blockcache", cache_options=held)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        with storage_errors(self._path, "read"):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
