"""The run directory, which is the only state of a run: what is done lies in it whole, what is missing is made.

settings.yaml                 the settings as they were resolved
manifest.json                 what the run was made from, and how its last start went
lock.json                     the start that is at work here, while it lives
shards/00000.parquet          the ingested conversations, in order
rejects.jsonl                 one line for each input row that could not be used
scores/MEMBER/00000.parquet   each member's own probabilities
submission.csv                the blend, one line for each id

Only this file touches a run directory's file system.
"""

import errno
import json
import os
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from lmsys_ray import sealed
from lmsys_ray.errors import DamagedError, RunError

FORMAT = 2
"""Version of the run directory's layout."""

_READERS = 4
"""Shards that are read ahead, each by a thread: waiting for a disk or a network is most of it."""

_FAULTS_OF_STORAGE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # not to be written
    *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EIO),  # gone or failing
}

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends without an error.

    Raises `RunError` where it cannot be written: the disk is full, read-only, failing or gone.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS_OF_STORAGE:
            raise
        raise RunError(
            f"{path} cannot be written ({os.strerror(error.errno)}); mend that and start the same command again, "
            "what is done is kept, or choose another --output"
        ) from None


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a sealed Parquet file (see `sealed`) that is there whole or not at all.

    Raises `RunError` as `written_whole` does, and where the run directory is gone: it must not come back half.
    """
    data = sealed.to_bytes(table)
    with _writing(path):
        path.parent.mkdir(exist_ok=True)
    with written_whole(path) as aside:
        aside.write_bytes(data)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a file of `write_table`, or `columns` of it; raises `DamagedError` unless it is there as it was written."""
    try:
        return sealed.from_bytes(path.read_bytes(), columns)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{path} is gone; a start of score.py makes it again") from None
    except sealed.DamageError as error:
        raise DamagedError(f"{path} is damaged ({error}); a start of score.py makes it again") from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise RunError(f"{path} cannot be read ({reason}); mend that and start the same command again") from None


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields `function` of each item, in order, while threads compute the next few."""
    with ThreadPoolExecutor(_READERS) as pool:
        under_way: deque[Future[Result]] = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > _READERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


class RunDirectory:
    """Paths in a run directory, and what is there already."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.submission = self.path / "submission.csv"
        self.rejects = self.path / "rejects.jsonl"
        self.lock = self.path / "lock.json"
        self._manifest = self.path / "manifest.json"

    def shard(self, number: int) -> Path:
        return self.path / "shards" / f"{number:05d}.parquet"

    def score(self, member: str, number: int) -> Path:
        return self.path / "scores" / member / f"{number:05d}.parquet"

    def missing(self, member: str, shards: int) -> list[int]:
        """Returns the numbers of the shards that `member` has not scored, out of 0 to `shards` - 1."""
        return _absent(self.path / "scores" / member, shards)

    def missing_conversations(self, shards: int) -> list[int]:
        """Returns the numbers of the shards of conversations that are not there, out of 0 to `shards` - 1."""
        return _absent(self.path / "shards", shards)

    def prepare(self) -> None:
        """Makes the folders that all starts need and removes what an interrupted one left half written."""
        with _writing(self.path):
            for folder in ("shards", "scores"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            for pattern in (".*.tmp", "shards/.*.tmp", "scores/*/.*.tmp"):
                for half in self.path.glob(pattern):
                    half.unlink(missing_ok=True)

    def remove_damaged(self) -> list[Path]:
        """Reads every shard and every score and removes those that are not as they were written; returns which."""
        files = [path for pattern in ("shards/*.parquet", "scores/*/*.parquet") for path in self.path.glob(pattern)]
        damaged = [path for path, whole in zip(files, ahead(_is_whole, files), strict=True) if not whole]
        with _writing(self.path):
            for path in damaged:
                path.unlink(missing_ok=True)
        return damaged

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest, empty before the run's first start; raises `RunError` where it cannot be read."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any(self.path.glob("shards/*.parquet")) or any(self.path.glob("scores/*/*.parquet")):
                raise RunError(
                    f"{self.path} holds shards but no {self._manifest.name}, so that nobody knows what they were made "
                    "from; choose another --output or remove it"
                ) from None
            return {}
        except (ValueError, OSError) as error:
            raise RunError(f"{self._manifest} cannot be read ({error}); choose another --output or remove it") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{self._manifest} was not written by this version of lmsys_ray; choose another --output")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with written_whole(self._manifest) as aside:
            aside.write_text(json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n", encoding="utf-8")

    def write_settings(self, text: str) -> None:
        with written_whole(self.path / "settings.yaml") as aside:
            aside.write_text(text, encoding="utf-8")

    def create_lock(self, text: str) -> bool:
        """Writes the lock unless there is one already; returns whether it did."""
        with _writing(self.lock):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                with self.lock.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                return False
        return True

    def read_lock(self) -> str:
        """Returns the lock's text, empty where there is none."""
        return self.lock.read_text(encoding="utf-8") if self.lock.exists() else ""

    def replace_lock(self, text: str) -> None:
        with written_whole(self.lock) as aside:
            aside.write_text(text, encoding="utf-8")

    def remove_lock(self) -> None:
        self.lock.unlink(missing_ok=True)

    def write_unscorable(self, rejects: Iterable[dict[str, Any]]) -> None:
        """Puts the rows that members could not score behind ingest's own rejects, in place of those named before."""
        with written_whole(self.rejects) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(line for line in self._reject_lines() if "member" not in json.loads(line))
            file.writelines(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)

    def reject_reasons(self) -> Counter[str]:
        """Returns how many rejects there are of each reason."""
        return Counter(json.loads(line)["reason"] for line in self._reject_lines())

    def _reject_lines(self) -> Iterator[str]:
        try:
            with self.rejects.open(encoding="utf-8") as file:
                yield from file
        except FileNotFoundError:
            raise RunError(f"{self.rejects} is gone; remove {self.path} and start the command again") from None


def _absent(folder: Path, count: int) -> list[int]:
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return [number for number in range(count) if f"{number:05d}.parquet" not in there]


def _is_whole(path: Path) -> bool:
    try:
        read_table(path, [])
    except DamagedError:
        return False
    return True
