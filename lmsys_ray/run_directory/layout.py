"""The run directory, the only state of a run: what is there is complete, and what is missing is made.

It is on a local file system or in object storage; `docs/run-directory.md` lists its files. Shards and scores are sealed
with a label (`lmsys_ray.run_directory.manifest.Binding`), so that a file of another run counts as missing.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.errors import DamagedError, DamagedManifestError, RunError, UsageError
from lmsys_ray.run_directory import sealed_parquet as sealed
from lmsys_ray.run_directory.formats import FormatError
from lmsys_ray.run_directory.manifest import (
    UNBOUND,
    Binding,
    Manifest,
    ManifestError,
    Span,
    spans_from_bytes,
    spans_to_bytes,
)
from lmsys_ray.run_directory.score_checks import misfit
from lmsys_ray.run_directory.table_forms import score_form, shard_form
from lmsys_ray.run_directory.tables import prefetched, read_table, write_table
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import AnyPath, path_of

_TABLE_NAME = re.compile(r"(\d{5,})\.parquet")


class Table(NamedTuple):
    """A shard of conversations, or of a member's scores."""

    number: int
    member: str | None = None


class RunDirectory:
    """The paths and files of a run directory; `binding` gives the labels that its sealed files must have."""

    def __init__(self, path: str | AnyPath, binding: Binding = UNBOUND) -> None:
        self.path = path_of(path)
        self.binding = binding
        self.submission = self.path / "submission.csv"
        self.rejects = self.path / "rejects.jsonl"
        self.score_table = self.path / "scores.parquet"
        self.doubtful = self.path / "doubtful.jsonl"
        self.report = self.path / "report.html"
        self.lock = self.path / "lock.json"
        self.shards = self.path / "shards"
        self._scores = self.path / "scores"
        self._spans = self.shards / "spans.json"
        self._manifest = self.path / "manifest.json"

    def preferences(self, ending: str) -> AnyPath:
        """Returns the path of the preferences in a file with this ending, `jsonl` or `parquet`."""
        return self.path / f"preferences.{ending}"

    def shard(self, number: int) -> AnyPath:
        """Returns the path of a shard of conversations."""
        return self.shards / f"{number:05d}.parquet"

    def score(self, member: str, number: int) -> AnyPath:
        """Returns the path of a member's scores of a shard."""
        return self._scores / member / f"{number:05d}.parquet"

    def read_shard(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a shard of conversations; raises `DamagedError` where it is damaged, missing or of another run."""
        return read_table(self.shard(number), columns, self.binding.shard(number), shard_form)

    def carried(self) -> list[str]:
        """Returns which columns of `lmsys_ray.data.carried.CARRIED` the shards have; raises as `read_shard` does."""
        names = self.read_shard(0, None).column_names
        return [name for name in CARRIED.names if name in names]

    def write_shard(self, number: int, table: pa.Table) -> None:
        """Writes a shard of conversations."""
        write_table(table, self.shard(number), self.binding.shard(number))

    def read_scores(self, member: str, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads a member's scores of a shard; raises as `read_shard` does."""
        return read_table(self.score(member, number), columns, self.binding.score(member, number), score_form)

    def write_scores(self, member: str, number: int, table: pa.Table) -> None:
        """Writes a member's scores of a shard; raises `RunError` where the run was removed meanwhile."""
        if not storage.exists(self._manifest):
            raise RunError(f"{self.path} is gone; put it back and start the same command again")
        write_table(table, self.score(member, number), self.binding.score(member, number))

    def missing(self, member: str, shards: int) -> list[int]:
        """Returns the numbers of the shards that `member` has not scored, out of 0 to `shards` - 1."""
        return _absent(self._scores / member, shards)

    def largest_first(self, shards: Iterable[int]) -> list[int]:
        """Returns `shards` ordered by the size of their files, largest first.

        Size stands for work, so that the end of a pass does not wait for one long shard (Graham 1969). Shards of one
        size stay in order.
        """
        sizes = self.shard_bytes()
        return sorted(shards, key=lambda number: -sizes[number])

    def shard_bytes(self) -> Mapping[int, int]:
        """Returns the bytes of the file of each shard, by number; 0 for one that is missing."""
        return defaultdict(int, {number: file.bytes for number, file in self.listed_shards().items()})

    def listed_shards(self) -> dict[int, storage.Listed]:
        """Returns the files of the shards that are there, by number, ascending."""
        return _numbered(self.shards)

    def listed_scores(self, member: str) -> dict[int, storage.Listed]:
        """Returns the files of the shards that `member` has scored, by number, ascending."""
        return _numbered(self._scores / member)

    def missing_conversations(self, shards: int) -> list[int]:
        """Returns the numbers of the missing shards of conversations, out of 0 to `shards` - 1."""
        return _absent(self.shards, shards)

    def prepare(self) -> None:
        """Makes the folders that every start needs, and removes files that an interrupted start left unfinished."""
        for folder in (self.shards, self._scores):
            storage.make_folder(folder)
        storage.remove_temporary_files(self.path)
        self.remove_unfinished_tables()

    def remove_unfinished_tables(self) -> None:
        """Removes what workers left unfinished that died while they wrote; no worker may be writing."""
        for folder in self._folders():
            storage.remove_temporary_files(folder)

    def remove_damaged(self) -> list[AnyPath]:
        """Reads all shards and scores, removes those that are not as this run wrote them, and returns their paths.

        Scores with other rows than their shard are removed too. Scores of members that the run does not know are kept.
        """
        tables = self.tables()
        damaged = [
            self._path(t) for t, whole in zip(tables, prefetched(self._is_whole, tables), strict=True) if not whole
        ]
        for path in damaged:
            storage.remove(path)
        return damaged

    def _is_whole(self, table: Table) -> bool:
        try:
            if table.member is None:
                self.read_shard(table.number, [])
                return True
            scores = self.read_scores(table.member, table.number)
        except DamagedError:
            return False
        try:
            return misfit(self.read_shard(table.number, ["row", "rejected"]), scores) is None
        except DamagedError:
            return True  # The shard is removed and made again from the same rows.

    def tables(self) -> list[Table]:
        """Returns the shards and scores that exist, without those of members that the run does not know."""
        members = sorted(storage.names(self._scores))
        if self.binding.ingest:
            members = [name for name in members if name in self.binding.members]
        folders = [(None, self.shards), *((member, self._scores / member) for member in members)]
        return [
            Table(int(match[1]), member)
            for member, folder in folders
            for match in map(_TABLE_NAME.fullmatch, sorted(storage.names(folder)))
            if match
        ]

    def label_in(self, table: Table) -> str | None:
        """Returns the label of a file, empty if it has none; None where the file is damaged or missing."""
        try:
            return sealed.label_of(storage.read_bytes(self._path(table)))
        except (FileNotFoundError, sealed.SealError):
            return None

    def _path(self, table: Table) -> AnyPath:
        return self.shard(table.number) if table.member is None else self.score(table.member, table.number)

    def _folders(self) -> list[AnyPath]:
        return [self.shards, *(self._scores / member for member in sorted(storage.names(self._scores)))]

    def read_manifest(self) -> Manifest | None:
        """Returns the manifest; None before the first start of the run.

        Raises `DamagedManifestError` where it is damaged, or missing although there are shards, and `UsageError`
        where it is of a format that this version does not know.
        """
        try:
            return Manifest.from_bytes(storage.read_bytes(self._manifest))
        except FileNotFoundError:
            if self.tables():
                raise DamagedManifestError(
                    f"{self.path} holds shards but no {self._manifest.name}, so that nobody knows what they were made "
                    "from; a start of score.py finds out whether from its input, or choose another --output"
                ) from None
            return None
        except FormatError as error:
            raise UsageError(f"{self._manifest} {error}") from None
        except ManifestError as error:
            raise DamagedManifestError(
                f"{self._manifest} is damaged ({error}); a start of score.py makes it again, or choose another --output"
            ) from None

    def read_spans(self) -> list[Span]:
        """Returns the copy of the manifest's spans; empty where there is none, or it is damaged."""
        try:
            return spans_from_bytes(storage.read_bytes(self._spans))
        except FileNotFoundError:
            return []

    def write_manifest(self, manifest: Manifest) -> None:
        """Replaces the manifest, after the copy of its spans, without which it could not be made again."""
        if manifest.spans and manifest.spans != self.read_spans():
            storage.write_bytes(self._spans, spans_to_bytes(manifest.spans))
        storage.write_bytes(self._manifest, manifest.to_bytes())
        if not manifest.spans and storage.exists(self._spans):
            storage.remove(self._spans)

    def write_settings(self, text: str) -> None:
        """Replaces the resolved settings, YAML."""
        storage.write_bytes(self.path / "settings.yaml", text.encode())

    def create_lock(self, text: str) -> bool:
        """Writes the lock unless there is one; returns whether it did."""
        return storage.create(self.lock, text.encode())

    def read_lock(self) -> str:
        """Returns the text of the lock, empty if there is none."""
        try:
            return storage.read_bytes(self.lock).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def replace_lock(self, text: str) -> None:
        """Writes the lock, whether there is one or not."""
        storage.write_bytes(self.lock, text.encode(), lasting=False)

    def remove_lock(self) -> None:
        """Removes the lock, if there is one."""
        storage.remove(self.lock)

    def write_unscorable(self, rejects: Iterable[dict[str, Any]]) -> None:
        """Writes rejects of members after those of ingest, in place of earlier rejects of members."""
        with storage.atomic_file(self.rejects) as aside, aside.open("wb") as file:
            file.writelines(line for line, reject in self._rejects() if "member" not in reject)
            file.writelines((json.dumps(reject, ensure_ascii=False) + "\n").encode() for reject in rejects)

    def reject_reasons(self) -> Counter[str]:
        """Returns how many rejects there are of each reason."""
        return Counter(reject["reason"] for _, reject in self._rejects())

    def ingest_rejects(self) -> Iterator[dict[str, Any]]:
        """Yields the rejects of ingest, in the order of the input."""
        for _, reject in self._rejects():
            if "member" in reject:
                return
            yield reject

    def _rejects(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yields each line of the rejects and what it says; raises `RunError` where the file is gone or damaged."""
        if not storage.exists(self.rejects):
            raise RunError(f"{self.rejects} is gone; start the same command again, which makes it again")
        with storage_errors(self.rejects, "read"), storage.open_binary(self.rejects) as file:
            for line in file:
                reject = reject_in(line)
                if reject is None:
                    raise RunError(f"{self.rejects} is damaged; start the same command again, which makes it again")
                yield line, reject


def reject_in(line: bytes) -> dict[str, Any] | None:
    """Returns the reject in a line of rejects; None if the line is damaged."""
    try:
        reject = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(reject, dict) and isinstance(reject.get("reason"), str) and line.endswith(b"\n")
    return reject if whole else None


def _numbered(folder: AnyPath) -> dict[int, storage.Listed]:
    matched = ((_TABLE_NAME.fullmatch(name), file) for name, file in storage.listing(folder).items())
    return dict(sorted((int(match[1]), file) for match, file in matched if match))


def _absent(folder: AnyPath, count: int) -> list[int]:
    there = storage.names(folder)
    return [number for number in range(count) if f"{number:05d}.parquet" not in there]
