"""Where files lie: paths of this machine, and URLs of object storage, which the libraries of fsspec reach.

A local path stays a plain `pathlib.Path`; a URL becomes a `UPath`, a pathlib for fsspec. A local file is written aside
and renamed; an object of storage is put whole or not at all, by one request or by an upload in parts that is completed
at its end. Only this file knows the difference. What goes wrong is told as `storage_errors` says.
"""

import glob
import io
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import pyarrow as pa
from fsspec import get_filesystem_class
from upath import UPath

from lmsys_ray.errors import UsageError
from lmsys_ray.storage_errors import reaching, refuse_credentials

AnyPath: TypeAlias = Path | UPath

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}

_READ_BYTES = 4 << 20
_READ_BLOCKS = 12
"""A file in storage is read in ranges of so many bytes, of which so many are held: the columns of a Parquet file lie
apart and are read in turns."""

_VERSIONS = ("md5Hash", "ETag", "etag", "blob_id", "LastModified", "last_modified", "mtime", "created")
"""What stores call that which tells one content of a file from another, the best first."""


def path_of(name: str | AnyPath) -> AnyPath:
    """Returns the path that a setting names: a `Path`, or for a URL a `UPath`.

    Raises `UsageError` for a URL that holds a credential, and for a storage that is not known or whose package is not
    installed.
    """
    if not isinstance(name, str):
        return name
    url = _URL.match(name)
    if url is None:
        return Path(name)
    refuse_credentials(name)
    protocol = url[1].lower()
    if protocol in ("file", "local"):
        return Path(name[url.end() :])
    try:
        get_filesystem_class(protocol)
    except ImportError:
        package = f"lmsys_ray[{_EXTRAS[protocol]}]" if protocol in _EXTRAS else f"fsspec[{protocol}]"
        raise UsageError(f"{name} needs a package that is not installed; run pip install '{package}'") from None
    except ValueError:
        raise UsageError(
            f"{name} is in no storage that is known; accepted: local paths, s3://, gs://, hf:// and the like"
        ) from None
    return UPath(name, use_listings_cache=False)  # other processes write what is listed


def exists(path: AnyPath) -> bool:
    """Returns whether there is a file or directory."""
    return path.exists() if isinstance(path, Path) else _info(path) is not None


def is_directory(path: AnyPath) -> bool:
    return path.is_dir() if isinstance(path, Path) else (_info(path) or {}).get("type") == "directory"


def matches(name: str) -> list[str]:
    """Returns the files and directories that a path, a URL or a glob of either names, sorted; `**` is any depth."""
    path = path_of(name)
    if exists(path):
        return [name]
    if isinstance(path, Path):
        return sorted(glob.glob(str(path), recursive=True))
    with reaching(path, "listed"):
        return sorted(path.fs.unstrip_protocol(found) for found in path.fs.glob(path.path))


def names(folder: AnyPath) -> set[str]:
    """Returns the names of what lies in a folder; none where there is no folder."""
    if isinstance(folder, Path):
        return set(os.listdir(folder)) if folder.is_dir() else set()
    return {name.rpartition("/")[2] for name in _listed(folder)}


def sizes(folder: AnyPath) -> dict[str, int]:
    """Returns the bytes of each file in a folder, by name; none where there is no folder."""
    if not isinstance(folder, Path):
        return {name.rpartition("/")[2]: item["size"] for name, item in _listed(folder).items() if "size" in item}
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries}


def versions(path: UPath) -> dict[str, dict[str, Any]]:
    """Returns `bytes` and `etag` of an object, or of those directly below it, by name; none where it does not exist.

    The etag is what the store tells one content from another by, a date where it has nothing better.
    """
    info = _info(path)
    if info is None:
        return {}
    found = {path.path: info} if info["type"] == "file" else _listed(path)
    return {
        name.rpartition("/")[2]: {"bytes": item["size"], "etag": _version(item)}
        for name, item in sorted(found.items())
        if item["type"] == "file"
    }


def _version(info: dict[str, Any]) -> str:
    return next((str(info[key]).strip('"') for key in _VERSIONS if info.get(key) is not None), "")


def _info(path: UPath) -> dict[str, Any] | None:
    with reaching(path, "read"), suppress(FileNotFoundError):
        return cast(dict[str, Any], path.fs.info(path.path))
    return None


def _listed(folder: UPath) -> dict[str, dict[str, Any]]:
    with reaching(folder, "listed"), suppress(FileNotFoundError):
        found = {item["name"].rstrip("/"): item for item in folder.fs.ls(folder.path, detail=True)}
        return {name: item for name, item in found.items() if name != folder.path.rstrip("/")}
    return {}


def read_bytes(path: AnyPath) -> bytes:
    """Returns a file's content; raises `FileNotFoundError` where there is none, `RunError` where it is out of reach."""
    with reaching(path, "read", passing=FileNotFoundError):
        try:
            return path.read_bytes() if isinstance(path, Path) else cast(bytes, path.fs.cat_file(path.path))
        except NotADirectoryError:
            raise FileNotFoundError(path) from None


def opened(path: AnyPath) -> BinaryIO:
    """Opens a file for reading from any place on; of one in storage, ranges are fetched and little is held."""
    if isinstance(path, Path):
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Ranges(path), 1 << 20))


def arrow_input(path: AnyPath) -> pa.NativeFile:
    """Opens a file for Arrow to read from any place on."""
    return pa.OSFile(str(path)) if isinstance(path, Path) else pa.PythonFile(opened(path), "r")


class _Ranges(io.RawIOBase):
    """An object of storage, read in ranges."""

    def __init__(self, path: UPath) -> None:
        self._path = path
        held = {"maxblocks": _READ_BLOCKS}
        with reaching(path, "read"):
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
        with reaching(self._path, "read"):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def make_folder(folder: AnyPath) -> None:
    """Makes a local folder and those above it; object storage has none."""
    if isinstance(folder, Path):
        with reaching(folder, "written"):
            folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def written_whole(path: AnyPath) -> Iterator[Path]:
    """Gives a temporary local path whose file becomes that of `path` when the block ends without an error.

    Raises `RunError` where it cannot be written: the disk is full, the storage out of reach.
    """
    make_folder(path.parent)
    with reaching(path, "written"):
        if isinstance(path, Path):
            with _renamed(path) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / path.name
            yield aside
            path.fs.put_file(str(aside), path.path)


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Writes a file whole or not at all.

    A local one needs the folder above its own: what was taken away must not come back half. Raises `RunError` where it
    cannot be written.
    """
    with reaching(path, "written"):
        if isinstance(path, Path):
            path.parent.mkdir(exist_ok=True)
            with _renamed(path) as aside:
                aside.write_bytes(data)
        else:
            path.fs.pipe_file(path.path, data)


def create(path: AnyPath, data: bytes) -> bool:
    """Writes a small file unless there is one already; returns whether it did.

    Of two at once one alone succeeds: locally, on S3 and on Google's storage. Other stores may let the later one win.
    """
    make_folder(path.parent)
    with reaching(path, "written"), suppress(FileExistsError):
        if isinstance(path, Path):
            with path.open("xb") as file:
                file.write(data)
        else:
            path.fs.pipe_file(path.path, data, mode="create")
        return True
    return False


def remove(path: AnyPath) -> None:
    """Removes a file where it is there."""
    with reaching(path, "removed"), suppress(FileNotFoundError):
        if isinstance(path, Path):
            path.unlink()
        else:
            path.fs.rm_file(path.path)


def remove_half_written(folder: AnyPath) -> None:
    """Removes what `written_whole` left aside in a local folder when its process was killed; storage has no such."""
    if isinstance(folder, Path):
        with reaching(folder, "written"):
            for half in folder.glob(".*.tmp"):
                half.unlink(missing_ok=True)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
