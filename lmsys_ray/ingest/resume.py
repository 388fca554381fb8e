"""How far an ingest has come, read from its shards, so that it resumes after the last whole one.

The metadata of a shard say how much of the input, and how many bytes of the rejects, it and those before it cover.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, takewhile

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from lmsys_ray.data.readers import BEGINNING, ReadPosition
from lmsys_ray.errors import DamagedError
from lmsys_ray.ingest.unique_ids import SeenIds
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested
from lmsys_ray.run_directory.published_rejects import consecutive, find_parts
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.storage import files as storage

_KEY = b"lmsys_ray.covered"


@dataclass(frozen=True)
class Covered:
    """What a shard and those before it cover of the input."""

    counts: Ingested = field(default_factory=Ingested)
    file: str = ""
    """The path of the last row's file, in a run that an earlier version began."""
    place: int | None = None
    """The place of the last row's file in the input, in other runs, since paths may change."""
    row: int = 0
    """The number of the last row in that file."""
    start: ReadPosition = BEGINNING
    """Where reading the file must begin to yield the last row."""
    rejects_bytes: int = 0
    """The size of the rejects of these rows."""

    def attach_to(self, shard: pa.Table) -> pa.Table:
        """Returns `shard` with this in its metadata."""
        values = asdict(self)
        del values["place" if self.place is None else "file"]
        return shard.replace_schema_metadata({_KEY: json.dumps(values)})

    @classmethod
    def read_from(cls, shard: pa.Table) -> "Covered":
        """Returns what is in the metadata of a shard; raises `DamagedError` where they are of another form."""
        try:
            return _COVERED.validate_json((shard.schema.metadata or {}).get(_KEY, b""), strict=True)
        except ValidationError:
            raise DamagedError("a shard does not say what it covers; a start of score.py makes it again") from None


_COVERED = TypeAdapter(Covered)


def read_covered(run: RunDirectory) -> tuple[Covered, SeenIds]:
    """Returns what the first whole shards of `run` cover, and their ids; a missing or damaged shard ends them."""
    last, seen = Covered(), SeenIds()
    there = storage.names(run.shards)
    parts = consecutive(find_parts(there))
    rejects_bytes = parts[-1].stop if parts else 0
    shards = takewhile(lambda number: run.shard(number).name in there, count())
    for found in prefetched(partial(_ids_of, run), shards):
        if found is None or found[0].rejects_bytes > rejects_bytes:
            break
        last = found[0]
        seen.first_seen(found[1])
    return last, seen


def end_of_shards(run: RunDirectory) -> tuple[int, int]:
    """Returns the number of shards up to the last whole one, and of the rows in them, of an ingest that broke off."""
    for number in reversed(run.listed_shards()):
        try:
            counts = Covered.read_from(run.read_shard(number, [])).counts
        except DamagedError:
            continue
        return counts.shards, counts.lines
    return 0, 0


def remove_shards_from(run: RunDirectory, files: Sequence[str], place: int, first: int = 0) -> None:
    """Removes the shards from `first` on that may hold rows of the file at `place` of the input, or of a later one.

    The next ingest resumes before them and removes their rejects.
    """
    found = False
    for number in sorted(table.number for table in run.tables() if table.member is None and table.number >= first):
        try:
            last = Covered.read_from(run.read_shard(number, []))
        except DamagedError:
            continue
        at = last.place if last.place is not None else files.index(last.file) if last.file in files else 0
        found = found or at >= place
        if found:
            storage.remove(run.shard(number))


def counts_hold(run: RunDirectory, counts: Ingested) -> bool:
    """Returns whether the counts of a complete ingest agree with its shards.

    A damaged or missing shard does not contradict them, since it is made again when it is read.
    """
    beyond = [table for table in run.tables() if table.member is None and table.number >= counts.shards]
    if beyond or not counts.shards:
        return not beyond
    try:
        last = Covered.read_from(run.read_shard(counts.shards - 1, [])).counts
    except DamagedError:
        return True
    return (last.lines, last.shards) == (counts.lines, counts.shards) and last.rows <= counts.rows


def _ids_of(run: RunDirectory, number: int) -> tuple[Covered, pa.Array] | None:
    try:
        table = run.read_shard(number, ["id"])
        return Covered.read_from(table), table["id"].combine_chunks()
    except DamagedError:
        return None
