"""Local paths and URLs of object storage, which the libraries of fsspec reach. Only this file knows the difference.

A local path is a plain `pathlib.Path`; a URL becomes a `UPath`, a pathlib for fsspec. A local file is written under
another name, synced and renamed; an object is uploaded as a whole, in one request or in parts that are completed at the
end. Errors are those of `storage_errors`.
"""

import glob
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

import pyarrow as pa
from upath import UPath

from lmsys_ray.errors import UsageError
from lmsys_ray.storage import durable
from lmsys_ray.storage.errors import refuse_credentials, storage_errors
from lmsys_ray.storage.file_systems import file_system, load
from lmsys_ray.storage.ranges import open_ranges

AnyPath: TypeAlias = Path | UPath

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}

_VERSIONS = ("md5Hash", "ETag", "etag", "blob_id", "LastModified", "last_modified", "mtime", "created")
"""The keys under which stores give the version of a file's content, the best first."""


def path_of(name: str | AnyPath) -> AnyPath:
    """Returns the path that a setting names: a `Path`, or a `UPath` for a URL.

    Raises `UsageError` for a URL that holds a credential, and for a storage that is unknown or whose package is not
    installed.
    """
    if not isinstance(name, str):
        return name
    if "\0" in name:
        raise UsageError(f"{name!r} holds a NUL character, which no path can; give the path without it")
    url = _URL.match(name)
    if url is None:
        return Path(name)
    refuse_credentials(name)
    protocol = url[1].lower()
    if protocol in ("file", "local"):
        return Path(name[url.end() :])
    try:
        load(protocol)
    except ImportError:
        package = f"lmsys_ray[{_EXTRAS[protocol]}]" if protocol in _EXTRAS else f"fsspec[{protocol}]"
        raise UsageError(f"{name} needs a package that is not installed; run pip install '{package}'") from None
    except ValueError:
        raise UsageError(
            f"{name} is in an unknown storage; accepted: local paths, s3://, gs://, hf:// and the like"
        ) from None
    return UPath(name, use_listings_cache=False)  # other processes write there


def exists(path: AnyPath) -> bool:
    """Returns whether a file or directory exists."""
    if isinstance(path, Path):
        with storage_errors(path, "read"):  # no permission to look, a name that is too long
            return path.exists()
    return _info(path) is not None


def is_directory(path: AnyPath) -> bool:
    """Returns whether a path is a directory."""
    return path.is_dir() if isinstance(path, Path) else (_info(path) or {}).get("type") == "directory"


def matches(name: str) -> list[str]:
    """Returns the files and directories that a path, a URL or a glob of either names, sorted; `**` is any depth.

    A folder whose literal name looks like a glob is taken literally. Broken links are included.
    """
    path = path_of(name)
    if exists(path) or (isinstance(path, Path) and path.is_symlink()):
        return [name]
    pattern = _with_literal_folders(path)
    if isinstance(path, Path):
        return sorted(glob.glob(pattern, recursive=True))
    with storage_errors(path, "listed"):
        store = file_system(path)
        return sorted(store.unstrip_protocol(found) for found in store.glob(pattern))


def _with_literal_folders(pattern: AnyPath) -> str:
    """Returns a glob in which folders that exist under their literal name are escaped."""
    literal = next((folder for folder in pattern.parents if glob.has_magic(str(folder)) and exists(folder)), None)
    text = str(pattern) if isinstance(pattern, Path) else pattern.path
    if literal is None:
        return text
    folder = str(literal) if isinstance(literal, Path) else literal.path
    return glob.escape(folder) + text[len(folder) :]


def names(folder: AnyPath) -> set[str]:
    """Returns the names in a folder; empty where it does not exist."""
    if isinstance(folder, Path):
        return set(os.listdir(folder)) if folder.is_dir() else set()
    return {name.rpartition("/")[2] for name in _listed(folder)}


def sizes(folder: AnyPath) -> dict[str, int]:
    """Returns the bytes of each file in a folder, by name; empty where it does not exist."""
    return {name: file.bytes for name, file in listing(folder).items()}


class Listed(NamedTuple):
    """A file in a folder."""

    bytes: int
    modified: float
    """Seconds since 1970; 0 where the storage does not tell."""


def listing(folder: AnyPath) -> dict[str, Listed]:
    """Returns the files in a folder by name; empty where it does not exist."""
    if not isinstance(folder, Path):
        found = {name.rpartition("/")[2]: item for name, item in _listed(folder).items() if "size" in item}
        return {name: Listed(item["size"] or 0, _modified(item)) for name, item in found.items()}
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: Listed((stat := entry.stat()).st_size, stat.st_mtime) for entry in entries}


def _modified(item: Mapping[str, Any]) -> float:
    moments = (item.get(name) for name in ("LastModified", "mtime", "updated", "last_modified", "created"))
    found = next((moment for moment in moments if moment is not None), 0.0)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return found.timestamp() if isinstance(found, datetime) else float(found)


def versions(path: UPath) -> dict[str, dict[str, Any]]:
    """Returns `bytes` and `etag` of an object, or of those directly below it, by name; empty where it does not exist.

    The etag is the store's version of the content, or a date where it has nothing better.
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
    try:
        with storage_errors(path, "read"), suppress(FileNotFoundError):
            return cast(dict[str, Any], file_system(path).info(path.path))
    except (ValueError, NotImplementedError) as error:  # raised for names that the storage cannot have
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} names nothing in that storage ({reason}); check how it is spelled") from None
    return None


def _listed(folder: UPath) -> dict[str, dict[str, Any]]:
    with storage_errors(folder, "listed"), suppress(FileNotFoundError):
        found = {item["name"].rstrip("/"): item for item in file_system(folder).ls(folder.path, detail=True)}
        return {name: item for name, item in found.items() if name != folder.path.rstrip("/")}
    return {}


def read_bytes(path: AnyPath) -> bytes:
    """Returns the content of a file; raises `FileNotFoundError` if it is missing, `RunError` if it cannot be read."""
    with storage_errors(path, "read", let_through=FileNotFoundError):
        try:
            return path.read_bytes() if isinstance(path, Path) else cast(bytes, file_system(path).cat_file(path.path))
        except NotADirectoryError:
            raise FileNotFoundError(path) from None


def open_binary(path: AnyPath) -> BinaryIO:
    """Opens a seekable file for reading; of one in storage, ranges are fetched and few are kept in memory.

    Raises `FileNotFoundError` if it is missing, `RunError` if it cannot be read.
    """
    if isinstance(path, Path):
        with storage_errors(path, "read", let_through=FileNotFoundError):
            return path.open("rb")
    return open_ranges(path)


def arrow_input(path: AnyPath) -> pa.NativeFile:
    """Opens a seekable file for Arrow; errors are those of `open_binary`."""
    if isinstance(path, Path):
        with storage_errors(path, "read", let_through=FileNotFoundError):
            return pa.OSFile(str(path))
    return pa.PythonFile(open_binary(path), "r")


def make_folder(folder: AnyPath) -> None:
    """Makes a local folder and those above it; object storage has no folders."""
    if isinstance(folder, Path):
        with storage_errors(folder, "written"):
            durable.make_folder(folder)


@contextmanager
def atomic_file(path: AnyPath) -> Iterator[Path]:
    """Gives a temporary local path whose file becomes `path` when the block ends without an error.

    Raises `RunError` where it cannot be written, as when the disk is full or the storage out of reach.
    """
    make_folder(path.parent)
    with storage_errors(path, "written"):
        if isinstance(path, Path):
            with _replaced(path) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / path.name
            yield aside
            file_system(path).put_file(str(aside), path.path)


def write_bytes(path: AnyPath, data: bytes, lasting: bool = True) -> None:
    """Writes a file atomically; unless `lasting`, a power cut may leave it empty.

    Locally, the parent of its folder must exist: a directory that was removed must not be half recreated. Raises
    `RunError` where it cannot be written.
    """
    with storage_errors(path, "written"):
        if isinstance(path, Path):
            durable.make_folder(path.parent, parents=False)
            with _replaced(path, lasting) as aside:
                aside.write_bytes(data)
        else:
            file_system(path).pipe_file(path.path, data)


def create(path: AnyPath, data: bytes) -> bool:
    """Writes a small file unless it exists; returns whether it did.

    Of two writers at the same time only one succeeds, locally, on S3 and on Google Cloud Storage. In other stores the
    later one may win.
    """
    make_folder(path.parent)
    with storage_errors(path, "written"), suppress(FileExistsError):
        if isinstance(path, Path):
            with path.open("xb") as file:
                file.write(data)
        else:
            file_system(path).pipe_file(path.path, data, mode="create")
        return True
    return False


def remove(path: AnyPath) -> None:
    """Removes a file if it exists."""
    with storage_errors(path, "removed"), suppress(FileNotFoundError):
        if isinstance(path, Path):
            path.unlink()
        else:
            file_system(path).rm_file(path.path)


def remove_temporary_files(folder: AnyPath) -> None:
    """Removes what `atomic_file` left in a local folder when its process was killed; storage has no such files."""
    if isinstance(folder, Path):
        with storage_errors(folder, "written"):
            for half in folder.glob(".*.tmp"):
                half.unlink(missing_ok=True)


def _replaced(path: Path, lasting: bool = True) -> AbstractContextManager[Path]:
    return durable.replaced_file(path, path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"), lasting)
