"""Which files an input names, and how they are opened."""

import glob
import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from lmsys_ray.errors import UsageError
from lmsys_ray.resources import locate

FORMATS = {".csv": "csv", ".csv.gz": "csv", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".parquet": "parquet"}
"""The file name endings that can be read, and the format behind each."""

_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def expand_inputs(patterns: Iterable[str]) -> list[str]:
    """Returns the files that paths and globs name, in the order given, each glob sorted by name.

    Raises `UsageError` for a name that matches nothing, a directory, or an ending that is not in `FORMATS`.
    """
    files = []
    for pattern in patterns:
        path = locate(pattern)
        matches = [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise UsageError(f"input: {pattern} does not exist; give a path or a glob of {', '.join(FORMATS)} files")
        files += [match for match in matches if _is_input(match, named=len(matches) == 1)]
    if not files:
        raise UsageError(
            f"input: no file in {', '.join(patterns)}; give a path or a glob of {', '.join(FORMATS)} files"
        )
    return files


def _is_input(path: str, named: bool) -> bool:
    """Tells files from directories; a directory that was named itself, or another format, is an error."""
    if Path(path).is_dir():
        if named:
            raise UsageError(f"input: {path} is a directory; name its files, for example {path.rstrip('/')}/*.csv")
        return False
    file_format(path)
    return True


def file_format(path: str) -> str:
    """Returns `csv`, `jsonl` or `parquet` by the ending of the name; raises `UsageError` for any other."""
    name = Path(path).name.lower()
    for ending, form in FORMATS.items():
        if name.endswith(ending):
            return form
    raise UsageError(f"input: {path} has an ending that is not known; accepted are {', '.join(FORMATS)}")


def open_bytes(path: str) -> BinaryIO:
    """Opens a CSV or JSON Lines file, unpacked where its name ends in .gz.

    Raises `UsageError` where the content is evidently not what the name says.
    """
    with open(path, "rb") as file:
        head = file.read(4)
    zipped = path.lower().endswith(".gz")
    if head[:2] == _GZIP_MAGIC and not zipped:
        raise UsageError(f"input: {path} is compressed with gzip; rename it to {path}.gz")
    if zipped and head and head[:2] != _GZIP_MAGIC:
        raise UsageError(f"input: {path} is not compressed with gzip; rename it without .gz")
    if head == _PARQUET_MAGIC:
        raise UsageError(f"input: {path} is a Parquet file by its content; rename it to end in .parquet")
    if head[:2] in _UTF16_MARKS:
        raise UsageError(f"input: {path} is UTF-16; convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8")
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else open(path, "rb")


def missing_columns(path: str, columns: Sequence[str], found: Sequence[str]) -> UsageError:
    """Returns the error of a file that has the columns `found` and not all of `columns`."""
    missing = [name for name in columns if name not in found]
    shown = ", ".join(found[:12])
    hint = "; is its delimiter a comma?" if len(found) == 1 else ""
    return UsageError(f"input: {path} has no column {', '.join(missing)}; it has {shown}{hint}")
