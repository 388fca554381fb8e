"""The run directory, which is the only state of a run: what is done lies in it whole, what is missing is made.

settings.yaml                 the settings as they were resolved
manifest.json                 what the run was made from, and how its last start went
lock.json                     the start that is at work here, while it lives
shards/00000.parquet          the ingested conversations, in order
shards/rejects-FROM-TO.jsonl  the rejects that ingest found, cut at the bytes FROM and TO of all of them
rejects.jsonl                 one line for each input row that could not be used
scores/MEMBER/00000.parquet   each member's own probabilities
submission.csv                the blend, one line for each id

It lies on a local file system or in object storage; `storage` makes both alike.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from lmsys_ray import sealed, storage
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.storage import AnyPath, path_of

FORMAT = 2
"""Version of the run directory's layout."""

_READERS = 4
"""Shards that are read ahead, each by a thread: waiting for a disk or a network is most of it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def write_table(table: pa.Table, path: AnyPath) -> None:
    """Writes a sealed Parquet file (see `sealed`) that is there whole or not at all; raises as `write_bytes` does."""
    storage.write_bytes(path, sealed.to_bytes(table))


def read_table(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a file of `write_table`, or `columns` of it; raises `DamagedError` unless it is there as it was written."""
    try:
        return sealed.from_bytes(storage.read_bytes(path), columns)
    except FileNotFoundError:
        raise DamagedError(f"{path} is gone; a start of score.py makes it again") from None
    except sealed.DamageError as error:
        raise DamagedError(f"{path} is damaged ({error}); a start of score.py makes it again") from None


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

    def __init__(self, path: str | AnyPath) -> None:
        self.path = path_of(path)
        self.submission = self.path / "submission.csv"
        self.rejects = self.path / "rejects.jsonl"
        self.lock = self.path / "lock.json"
        self.shards = self.path / "shards"
        self._scores = self.path / "scores"
        self._manifest = self.path / "manifest.json"

    def shard(self, number: int) -> AnyPath:
        return self.shards / f"{number:05d}.parquet"

    def score(self, member: str, number: int) -> AnyPath:
        return self._scores / member / f"{number:05d}.parquet"

    def missing(self, member: str, shards: int) -> list[int]:
        """Returns the numbers of the shards that `member` has not scored, out of 0 to `shards` - 1."""
        return _absent(self._scores / member, shards)

    def largest_first(self, shards: Iterable[int]) -> list[int]:
        """Returns the numbers of shards of conversations in another order: those that take most bytes first.

        Bytes stand for work, so that the end of a pass does not wait for one long shard (Graham 1969); shards of the
        same size stay in their order.
        """
        sizes = storage.sizes(self.shards)
        return sorted(shards, key=lambda number: -sizes.get(self.shard(number).name, 0))

    def missing_conversations(self, shards: int) -> list[int]:
        """Returns the numbers of the shards of conversations that are not there, out of 0 to `shards` - 1."""
        return _absent(self.shards, shards)

    def prepare(self) -> None:
        """Makes the folders that all starts need and removes what an interrupted one left half written."""
        for folder in (self.shards, self._scores):
            storage.make_folder(folder)
        for folder in (self.path, *self._folders()):
            storage.remove_half_written(folder)

    def remove_damaged(self) -> list[AnyPath]:
        """Reads every shard and every score and removes those that are not as they were written; returns which."""
        files = self._tables()
        damaged = [path for path, whole in zip(files, ahead(_is_whole, files), strict=True) if not whole]
        for path in damaged:
            storage.remove(path)
        return damaged

    def _folders(self) -> list[AnyPath]:
        return [self.shards, *(self._scores / member for member in sorted(storage.names(self._scores)))]

    def _tables(self) -> list[AnyPath]:
        return [f / name for f in self._folders() for name in sorted(storage.names(f)) if name.endswith(".parquet")]

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest, empty before the run's first start; raises `RunError` where it cannot be read."""
        try:
            manifest = json.loads(storage.read_bytes(self._manifest))
        except FileNotFoundError:
            if self._tables():
                raise RunError(
                    f"{self.path} holds shards but no {self._manifest.name}, so that nobody knows what they were made "
                    "from; choose another --output or remove it"
                ) from None
            return {}
        except ValueError as error:
            raise RunError(f"{self._manifest} cannot be read ({error}); choose another --output or remove it") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{self._manifest} was not written by this version of lmsys_ray; choose another --output")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        storage.write_bytes(self._manifest, (json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n").encode())

    def write_settings(self, text: str) -> None:
        storage.write_bytes(self.path / "settings.yaml", text.encode())

    def create_lock(self, text: str) -> bool:
        """Writes the lock unless there is one already; returns whether it did."""
        return storage.create(self.lock, text.encode())

    def read_lock(self) -> str:
        """Returns the lock's text, empty where there is none."""
        try:
            return storage.read_bytes(self.lock).decode()
        except FileNotFoundError:
            return ""

    def replace_lock(self, text: str) -> None:
        storage.write_bytes(self.lock, text.encode())

    def remove_lock(self) -> None:
        storage.remove(self.lock)

    def write_unscorable(self, rejects: Iterable[dict[str, Any]]) -> None:
        """Puts the rows that members could not score behind ingest's own rejects, in place of those named before."""
        with storage.written_whole(self.rejects) as aside, aside.open("wb") as file:
            file.writelines(line for line in self._reject_lines() if "member" not in json.loads(line))
            file.writelines((json.dumps(reject, ensure_ascii=False) + "\n").encode() for reject in rejects)

    def reject_reasons(self) -> Counter[str]:
        """Returns how many rejects there are of each reason."""
        return Counter(json.loads(line)["reason"] for line in self._reject_lines())

    def _reject_lines(self) -> Iterator[bytes]:
        if not storage.exists(self.rejects):
            raise RunError(f"{self.rejects} is gone; remove {self.path} and start the command again")
        with storage.opened(self.rejects) as file:
            yield from file


def _absent(folder: AnyPath, count: int) -> list[int]:
    there = storage.names(folder)
    return [number for number in range(count) if f"{number:05d}.parquet" not in there]


def _is_whole(path: AnyPath) -> bool:
    try:
        read_table(path, [])
    except DamagedError:
        return False
    return True
