"""The list of rejects that users read, and the parts beside the shards from which it can be made again."""

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from lmsys_ray.errors import DamagedError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.errors import storage_errors


class Part(NamedTuple):
    """A file with some of the rejects of ingest: bytes `start` to `stop` - 1 of all of them."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"rejects-{self.start:012d}-{self.stop:012d}.jsonl"


_PART_NAME = re.compile(r"rejects-(\d{12,})-(\d{12,})\.jsonl")


def find_parts(names: set[str]) -> list[Part]:
    """Returns the parts among names of files, in order."""
    found = (_PART_NAME.fullmatch(name) for name in names)
    return sorted(Part(int(match[1]), int(match[2])) for match in found if match)


def consecutive(parts: list[Part]) -> list[Part]:
    """Returns the parts that follow one another without a gap from byte 0."""
    found: list[Part] = []
    for part in parts:
        if part.start == (found[-1].stop if found else 0):
            found.append(part)
    return found


def publish(run: RunDirectory, parts: Sequence[Part]) -> None:
    """Writes consecutive parts as the rejects of `run`; raises `DamagedError` where a part is damaged or missing."""
    with storage.atomic_file(run.rejects) as aside, aside.open("wb") as file:
        for data in prefetched(partial(_read, run), parts):
            file.write(data)


def restore_rejects(run: RunDirectory, count: int) -> bool:
    """Writes the list again unless it begins with the `count` rejects of ingest; returns whether it did.

    Raises `DamagedError` where the parts do not hold them either.
    """
    parts = consecutive(find_parts(storage.names(run.shards)))
    if _is_published(run, parts[-1].stop if parts else 0, count):
        return False
    if not has_all_rejects(run, count):
        raise DamagedError(f"{run.rejects} and its parts are damaged or gone; a start of score.py makes them again")
    publish(run, parts)
    return True


def has_all_rejects(run: RunDirectory, count: int) -> bool:
    """Returns whether the parts hold the `count` rejects of ingest."""
    try:
        parts = consecutive(find_parts(storage.names(run.shards)))
        return sum(data.count(b"\n") for data in prefetched(partial(_read, run), parts)) == count
    except DamagedError:
        return False


def _is_published(run: RunDirectory, size: int, count: int) -> bool:
    """Returns whether the list begins with `count` rejects of ingest in `size` bytes, and the rest are members'."""
    if not storage.exists(run.rejects):
        return False
    lines, found = 0, 0
    with storage_errors(run.rejects, "read"), storage.open_binary(run.rejects) as file:
        for line in file:
            record, is_of_ingest = _record(line), lines < count
            if record is None or ("member" in record) == is_of_ingest:
                return False
            lines += 1
            found += len(line) * is_of_ingest
    return lines >= count and found == size


def _record(line: bytes) -> dict[str, Any] | None:
    """Returns the reject in a line; None if the line is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("reason"), str) and line.endswith(b"\n")
    return record if whole else None


def _read(run: RunDirectory, part: Part) -> bytes:
    path = run.shards / part.name
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        data = b""
    if len(data) != part.stop - part.start or any(_record(line) is None for line in data.splitlines(keepends=True)):
        storage.remove(path)  # so that the next ingest resumes before it
        raise DamagedError(f"{path} is damaged or gone; a start of score.py makes it again")
    return data
