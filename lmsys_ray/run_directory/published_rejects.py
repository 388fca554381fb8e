"""The list of rejects that users read, and the parts beside the shards from which it can be made again."""

import hashlib
import re
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from lmsys_ray.errors import DamagedError
from lmsys_ray.run_directory.layout import RunDirectory, reject_in
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.errors import storage_errors


class Part(NamedTuple):
    """A file with some of the rejects of ingest: bytes `start` to `stop` - 1 of all of them."""

    start: int
    stop: int
    digest: str = ""
    """Of these bytes; empty in a run that was begun before format 4."""

    @classmethod
    def of(cls, start: int, data: bytes) -> "Part":
        """Returns the part that holds `data`, whose first byte is byte `start` of all."""
        return cls(start, start + len(data), _digest(data))

    @property
    def name(self) -> str:
        """The name of its file."""
        digest = f"-{self.digest}" if self.digest else ""
        return f"rejects-{self.start:012d}-{self.stop:012d}{digest}.jsonl"

    def is_of(self, data: bytes) -> bool:
        """Returns whether these are its bytes, as far as it knows."""
        return len(data) == self.stop - self.start and self.digest in ("", _digest(data))


_PART_NAME = re.compile(r"rejects-(\d{12,})-(\d{12,})(?:-([0-9a-f]{16}))?\.jsonl")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def find_parts(names: set[str]) -> list[Part]:
    """Returns the parts among names of files, in order."""
    found = (_PART_NAME.fullmatch(name) for name in names)
    return sorted(Part(int(match[1]), int(match[2]), match[3] or "") for match in found if match)


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
        for data in prefetched(partial(read_part, run), parts):
            file.write(data)


def restore_rejects(run: RunDirectory, count: int) -> bool:
    """Writes the list again unless it begins with the `count` rejects of ingest; returns whether it did.

    Raises `DamagedError` where the parts do not hold them either.
    """
    parts = consecutive(find_parts(storage.names(run.shards)))
    if _is_published(run, parts, count):
        return False
    if not has_all_rejects(run, count):
        raise DamagedError(f"{run.rejects} and its parts are damaged or gone; a start of score.py makes them again")
    publish(run, parts)
    return True


def has_all_rejects(run: RunDirectory, count: int) -> bool:
    """Returns whether the parts hold the `count` rejects of ingest."""
    try:
        parts = consecutive(find_parts(storage.names(run.shards)))
        return sum(data.count(b"\n") for data in prefetched(partial(read_part, run), parts)) == count
    except DamagedError:
        return False


def _is_published(run: RunDirectory, parts: Sequence[Part], count: int) -> bool:
    """Returns whether the list begins with the `count` rejects of ingest in `parts`, and the rest are members'."""
    if not storage.exists(run.rejects):
        return False
    lines, found, expected = 0, bytearray(), deque(parts)
    with storage_errors(run.rejects, "read"), storage.open_binary(run.rejects) as file:
        for line in file:
            record, is_of_ingest = reject_in(line), lines < count
            if record is None or ("member" in record) == is_of_ingest:
                return False
            lines += 1
            found += line if is_of_ingest else b""
            if expected and len(found) >= expected[0].stop - expected[0].start:
                if not expected.popleft().is_of(bytes(found)):
                    return False
                found.clear()
    return lines >= count and not expected and not found


def read_part(run: RunDirectory, part: Part) -> bytes:
    """Returns the bytes of a part; removes one that is damaged, and raises `DamagedError` for it or a missing one."""
    path = run.shards / part.name
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        data = b""
    if not part.is_of(data) or any(reject_in(line) is None for line in data.splitlines(keepends=True)):
        storage.remove(path)  # so that the next ingest resumes before it
        raise DamagedError(f"{path} is damaged or gone; a start of score.py makes it again")
    return data
