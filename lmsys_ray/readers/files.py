"""Which files an input names, and how they are opened."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO, cast

from lmsys_ray.errors import UsageError
from lmsys_ray.resources import locate
from lmsys_ray.storage import is_directory, matches, opened, path_of

FORMATS = {".csv": "csv", ".csv.gz": "csv", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".parquet": "parquet"}
"""The file name endings that can be read, and the format behind each."""

_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def expand_inputs(patterns: Iterable[str]) -> list[str]:
    """Returns the files that paths, URLs and globs name, in the order given, each glob sorted by name.

    Raises `UsageError` for a name that matches nothing, a directory, or an ending that is not in `FORMATS`.
    """
    files = []
    for pattern in patterns:
        found = matches(locate(pattern))
        if not found:
            raise UsageError(f"input: {pattern} does not exist; give a path or a glob of {', '.join(FORMATS)} files")
        files += [match for match in found if _is_input(match, named=len(found) == 1)]
    if not files:
        raise UsageError(
            f"input: no file in {', '.join(patterns)}; give a path or a glob of {', '.join(FORMATS)} files"
        )
    return files


def _is_input(path: str, named: bool) -> bool:
    """Tells files from directories; a directory that was named itself, or another format, is an error."""
    if is_directory(path_of(path)):
        if named:
            raise UsageError(f"input: {path} is a directory; name its files, for example {path.rstrip('/')}/*.csv")
        return False
    file_format(path)
    return True


def file_format(path: str) -> str:
    """Returns `csv`, `jsonl` or `parquet` by the ending of the name; raises `UsageError` for any other."""
    name = PurePath(path).name.lower()
    for ending, form in FORMATS.items():
        if name.endswith(ending):
            return form
    raise UsageError(f"input: {path} has an ending that is not known; accepted are {', '.join(FORMATS)}")


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Opens a CSV or JSON Lines file, unpacked where its name ends in .gz.

    Raises `UsageError` where the content is evidently not what the name says.
    """
    with opened(path_of(path)) as file:
        zipped = path.lower().endswith(".gz")
        _check_head(path, file.read(4), zipped)
        file.seek(0)
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file


def _check_head(path: str, head: bytes, zipped: bool) -> None:
    if head[:2] == _GZIP_MAGIC and not zipped:
        raise UsageError(f"input: {path} is compressed with gzip; rename it to {path}.gz")
    if zipped and head and head[:2] != _GZIP_MAGIC:
        raise UsageError(f"input: {path} is not compressed with gzip; rename it without .gz")
    if head == _PARQUET_MAGIC:
        raise UsageError(f"input: {path} is a Parquet file by its content; rename it to end in .parquet")
    if head[:2] in _UTF16_MARKS:
        raise UsageError(f"input: {path} is UTF-16; convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8")


def missing_columns(path: str, columns: Sequence[str], found: Sequence[str]) -> UsageError:
    """Returns the error of a file that has the columns `found` and not all of `columns`."""
    missing = [name for name in columns if name not in found]
    shown = ", ".join(found[:12])
    hint = "; is its delimiter a comma?" if len(found) == 1 else ""
    return UsageError(f"input: {path} has no column {', '.join(missing)}; it has {shown}{hint}")
