"""Finds and opens the files that an input names."""

import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from gzip import BadGzipFile
from pathlib import Path, PurePath
from typing import BinaryIO, cast

from lmsys_ray.data.readers.zstd import open_zstd
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.files import is_directory, matches, open_binary, path_of
from lmsys_ray.storage.packaged import locate

FORMATS = {
    **{f".csv{packed}": "csv" for packed in ("", ".gz", ".zst")},
    **{f"{name}{packed}": "jsonl" for name in (".jsonl", ".json") for packed in ("", ".gz", ".zst")},
    ".parquet": "parquet",
}
"""The file name endings that can be read, and their formats."""

ENDINGS = ".csv .jsonl .json (also .gz, .zst) .parquet"
"""The endings, for messages."""

BROKEN_STREAM = (EOFError, BadGzipFile, zlib.error)
"""Raised for a damaged or truncated compressed stream."""

_OF_A_RUN = {
    *("submission.csv", "rejects.jsonl", "shards", "scores", "evaluation"),
    *("scores.parquet", "preferences.jsonl", "preferences.parquet", "doubtful.jsonl"),
    *("leaderboard.csv", "leaderboard.json"),
    *("settings.yaml", "manifest.json", "lock.json"),
}
"""What a run writes into its directory (see `lmsys_ray.run_directory.layout`)."""

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ENCODINGS = {
    rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff|[^\x00]\x00\x00\x00|\x00\x00\x00[^\x00]": "UTF-32",
    rb"\xff\xfe|\xfe\xff": "UTF-16",
    rb"[^\x00]\x00[^\x00]\x00": "UTF-16LE",
    rb"\x00[^\x00]\x00[^\x00]": "UTF-16BE",
}
"""The beginnings of text that is not UTF-8, with a byte order mark or with Latin letters."""

_PACKED = {
    b"PK\x03\x04": ("a zip file, or a spreadsheet", "unpack it, or save the spreadsheet as CSV"),
    b"BZh": ("compressed with bzip2", "unpack it by bunzip2, or pack it again by gzip"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unpack it by unxz, or pack it again by gzip"),
    ZSTD_MAGIC: ("compressed with zstd", "rename it to end in .zst"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it by 7z x"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "unpack it by unlz4, or pack it again by gzip"),
}
_HEAD_BYTES = 6
"""The number of bytes that identify all of these."""


def expand_inputs(patterns: Iterable[str], output: str | None = None) -> list[str]:
    """Returns the files that paths, URLs and globs name, in the order given, each glob sorted by name.

    A directory stands for the files in it and below that can be read, without those whose name, or that of a folder,
    begins with `.` or `_`. Neither globs nor directories match what a run writes into its directory `output`. Raises
    `UsageError` for a name that matches nothing, a broken link, what is not a file, or an ending that is not in
    `FORMATS`.
    """
    files = []
    for pattern in patterns:
        if not pattern.strip():
            raise UsageError(f"input: {pattern!r} is not a name; give a path or a glob of {ENDINGS} files")
        place = locate(pattern)
        found = matches(place)
        if not found:
            raise UsageError(f"input: {pattern} does not exist; give a path or a glob of {ENDINGS} files")
        if found == [place] and is_directory(path_of(place)):
            found = _below(place)
        elif found != [place]:
            found = [match for match in found if _is_input(match)]
        else:
            _is_input(place)
        if [place] != found:
            found = [match for match in found if output is None or not is_of_run(match, output)]
        files += found
    if not files:
        raise UsageError(f"input: no file in {', '.join(patterns)}; give a path or a glob of {ENDINGS} files")
    return files


def _below(folder: str) -> list[str]:
    """Returns the files below a folder that can be read, sorted."""
    inside = [match for match in matches(f"{glob.escape(folder.rstrip('/'))}/**/*") if has_format(match)]
    shown = [match for match in inside if not _is_hidden(match.removeprefix(folder.rstrip("/")))]
    return [match for match in shown if _is_input(match)]


def _is_hidden(below: str) -> bool:
    return any(part.startswith((".", "_")) for part in below.split("/") if part)


def is_of_run(path: str, output: str) -> bool:
    """Returns whether a path is `output`, or one that a run writes into that directory, where the user's may be too."""
    local = isinstance(path_of(path), Path) and isinstance(path_of(output), Path)
    path, output = (os.path.realpath(str(path_of(name))) if local else name.rstrip("/") for name in (path, output))
    inside = path.removeprefix(output + "/")
    return path == output or (inside != path and inside.split("/")[0] in _OF_A_RUN)


def _is_input(path: str) -> bool:
    """Returns whether a path is a file, not a directory; raises `UsageError` for another format."""
    place = path_of(path)
    if is_directory(place):
        return False
    file_format(path)
    if isinstance(place, Path) and not place.is_file():
        found = "a broken link" if place.is_symlink() and not place.exists() else "not a file"
        raise UsageError(f"input: {path} is {found}; mend it or leave it out")
    return True


def file_format(path: str) -> str:
    """Returns `csv`, `jsonl` (all JSON) or `parquet` by the ending of the name; raises `UsageError` for any other."""
    name = PurePath(path).name.lower()
    for ending, format_ in FORMATS.items():
        if name.endswith(ending):
            return format_
    raise UsageError(f"input: {path} has an unknown ending; accepted are {ENDINGS}")


def has_format(path: str) -> bool:
    """Returns whether the ending of a name is one that can be read."""
    return PurePath(path).name.lower().endswith(tuple(FORMATS))


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Opens a CSV or JSON file, unpacked where its name ends in .gz or .zst.

    Raises `UsageError` where the content is evidently not of the format that the name says.
    """
    with open_binary(path_of(path)) as file:
        zipped = path.lower().endswith(".gz")
        head = _head(file)
        if zipped and head[: len(GZIP_MAGIC)] == GZIP_MAGIC:
            file = cast(BinaryIO, gzip.GzipFile(fileobj=file))
            head = _head(file)
            _check_head(f"{path}, unpacked,", head)
            if head[: len(GZIP_MAGIC)] == GZIP_MAGIC:
                raise UsageError(f"input: {path} is compressed with gzip twice; unpack it once by gunzip")
        else:
            _check_head(path, head if not path.lower().endswith(".zst") else head.removeprefix(ZSTD_MAGIC))
            if head[: len(GZIP_MAGIC)] == GZIP_MAGIC:
                raise UsageError(f"input: {path} is compressed with gzip; rename it to {path}.gz")
            if zipped and head:
                raise UsageError(f"input: {path} is not compressed with gzip; rename it without .gz")
            if path.lower().endswith(".zst"):
                file = _unpacked_zstd(path, file, head)
        yield file


def _unpacked_zstd(path: str, file: BinaryIO, head: bytes) -> BinaryIO:
    if head[: len(ZSTD_MAGIC)] != ZSTD_MAGIC:
        raise UsageError(f"input: {path} is not compressed with zstd; rename it without .zst")
    unpacked = open_zstd(file)
    _check_head(f"{path}, unpacked,", _head(unpacked))
    return unpacked


def _head(file: BinaryIO) -> bytes:
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return head


def _check_head(place: str, head: bytes) -> None:
    """Raises `UsageError` where the content is evidently not text, or not UTF-8."""
    if head.startswith(PARQUET_MAGIC):
        raise UsageError(f"input: {place} is a Parquet file by its content; rename it to end in .parquet")
    for magic, (kind, remedy) in _PACKED.items():
        if head.startswith(magic):
            raise UsageError(f"input: {place} is {kind} by its content; {remedy}")
    for pattern, encoding in _ENCODINGS.items():
        if re.match(pattern, head, re.DOTALL):
            convert = f"convert it to UTF-8, for example with iconv -f {encoding} -t UTF-8"
            raise UsageError(f"input: {place} is {encoding}; {convert}")


def check_names(path: str, columns: Sequence[str], found: Sequence[str]) -> None:
    """Raises `UsageError` unless each of `columns` is in `found` exactly once."""
    if set(columns) - set(found):
        raise missing_columns(path, columns, found)
    twice = [name for name in columns if found.count(name) > 1]
    if twice:
        raise UsageError(f"input: {path} has more than one column {', '.join(twice)}; rename or drop all but one")


def missing_columns(path: str, columns: Sequence[str], found: Sequence[str]) -> UsageError:
    """Returns the error for a file that has the columns `found` but not all of `columns`."""
    missing = [name for name in columns if name not in found]
    shown = ", ".join(found[:12])
    hint = "; is its delimiter a comma?" if len(found) == 1 else ""
    return UsageError(f"input: {path} has no column {', '.join(missing)}; it has {shown}{hint}")
