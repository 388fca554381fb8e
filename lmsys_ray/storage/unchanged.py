"""Whether files are still those whose digests were taken: input that was ingested, models that workers loaded.

First the file system's data are compared: size, mtime and ctime, which no program can set back. Where these differ, as
for a copy on another machine, the content is read again; that of a model once on each machine. Objects in storage are
compared by their etags.
"""

import hashlib
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lmsys_ray.errors import ReplacedError, RunError
from lmsys_ray.storage.cache import cache_directory
from lmsys_ray.storage.contents import content, files_of
from lmsys_ray.storage.files import AnyPath, exists, path_of, write_bytes

_TICK_SECONDS = 2.0
"""On the coarsest file systems, changes that are closer together may have the same time."""


@dataclass(frozen=True)
class FileStamp:
    """What a file system says about a file, or about the files of a model."""

    stamp: str
    settled: bool
    """Whether the last change is so long ago that a later one would have another time."""

    @classmethod
    def at(cls, path: AnyPath) -> "FileStamp":
        """Returns the stamp of a local path as it is now; objects in storage have none."""
        if not isinstance(path, Path):
            return cls("", False)
        now, newest, stamp = time.time(), 0, hashlib.sha256()
        try:
            for file in files_of(path):
                found = file.stat()
                newest = max(newest, found.st_ctime_ns)
                stamp.update(f"{file}\0{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode())
        except OSError:
            return cls("gone", False)
        return cls(stamp.hexdigest()[:32], newest / 1e9 + _TICK_SECONDS < now)

    def is_unchanged_in(self, later: "FileStamp") -> bool:
        """Returns whether the files certainly did not change until `later`."""
        return self.settled and self == later


@dataclass(frozen=True)
class Original:
    """A file, or the files of a model, as they were when the digest in the manifest was taken."""

    name: str
    """The setting, by which errors name it."""
    path: str
    digest: str
    look: FileStamp
    """Taken before the digest."""
    place: int = 0
    """Its place among the files of the input."""

    def check(self) -> FileStamp:
        """Returns a stamp from before the check.

        Raises `ReplacedError` where the file was replaced, `RunError` where this machine does not see it.
        """
        path = path_of(self.path)
        now = FileStamp.at(path)
        if not exists(path):
            raise RunError(
                f"{self.name}: {path} is not there on {socket.gethostname()}; put it where all machines see it and "
                "start the same command again"
            )
        if not self.look.is_unchanged_in(now) and _digest(path, now) != self.digest:
            raise self._replaced("was replaced after this start had taken its digest")
        return now

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Surrounds reading it; raises `ReplacedError` where it was replaced before, or changed meanwhile."""
        before = self.check()
        yield
        now = self.check()
        if before.settled and not before.is_unchanged_in(now):
            raise self._replaced("changed while it was read")

    def _replaced(self, what: str) -> ReplacedError:
        return ReplacedError(
            f"{self.name}: {self.path} {what}; what was read of it does not count: put back what the run was made from "
            "and start the same command again, or choose another --output",
            self.place,
        )


@contextmanager
def all_unchanged(originals: Iterable[Original]) -> Iterator[None]:
    """Surrounds reading several files, as `Original.unchanged` does one."""
    with ExitStack() as stack:
        for original in originals:
            stack.enter_context(original.unchanged())
        yield


def _digest(path: AnyPath, look: FileStamp) -> str:
    """Returns the digest of what is at `path`, computed once for each machine and `look`."""
    if not look.settled:
        return str(content(path)["digest"])
    key = hashlib.sha256(f"{path}\0{look.stamp}".encode()).hexdigest()[:32]
    note = cache_directory() / "digests" / key
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(note.with_suffix(".lock")):
            if not note.exists():
                digest = str(content(path)["digest"])
                if not look.is_unchanged_in(FileStamp.at(path)):
                    return digest
                write_bytes(note, digest.encode(), lasting=False)
            return note.read_text(encoding="utf-8")
    except (OSError, RunError):  # the cache cannot be written, so that it is computed each time
        return str(content(path)["digest"])
