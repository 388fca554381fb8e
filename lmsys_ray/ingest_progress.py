"""How far an ingest has come, told by the shards themselves: an interrupted one goes on behind its last whole shard.

Each shard carries, in its metadata, how much of the input it and those before it cover. The rejects found on the way
lie in files beside the shards, each named by the bytes that it holds of all of them; a shard tells how many bytes
belong to what it covers.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from typing import Any, NamedTuple

import pyarrow as pa

from lmsys_ray import storage
from lmsys_ray.errors import DamagedError
from lmsys_ray.readers import BEGINNING, Start
from lmsys_ray.run import RunDirectory, ahead, read_table
from lmsys_ray.seen_ids import SeenIds
from lmsys_ray.storage import AnyPath

_PART_BYTES = 4 << 20
"""Rejects are put into a file of their own where so many wait."""

_KEY = b"lmsys_ray.covered"


@dataclass
class Ingested:
    """What came out of an ingest, in numbers of rows."""

    rows: int = 0
    """Input rows read."""
    lines: int = 0
    """Distinct ids: the rows of the shards and the lines of the submission."""
    rejects: int = 0
    """Input rows that cannot be scored."""
    unscored: int = 0
    """Distinct ids among the rejects, which get the class prior."""
    shards: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Covered:
    """What a shard and those before it cover of the input."""

    counts: Ingested = field(default_factory=Ingested)
    file: str = ""
    """The file of the last row."""
    row: int = 0
    """The number of the last row in that file."""
    start: Start = BEGINNING
    """Where reading that file comes to the last row again."""
    rejects_bytes: int = 0
    """Bytes of the rejects of these rows."""

    def sealed_in(self, shard: pa.Table) -> pa.Table:
        """Returns `shard` with this in its metadata."""
        return shard.replace_schema_metadata({_KEY: json.dumps(asdict(self))})

    @classmethod
    def told_by(cls, shard: pa.Table) -> "Covered":
        values: dict[str, Any] = json.loads(shard.schema.metadata[_KEY])
        return cls(**{**values, "counts": Ingested(**values["counts"]), "start": Start(*values["start"])})


def covered(run: RunDirectory) -> tuple[Covered, SeenIds]:
    """Returns what the whole shards at the beginning of `run` cover, and the ids that they hold."""
    last, seen = Covered(), SeenIds()
    there = storage.names(run.shards)
    parts = _joined(_parts(there))
    rejects_bytes = parts[-1].stop if parts else 0
    shards = takewhile(lambda path: path.name in there, map(run.shard, count()))
    for table in ahead(_ids_of, shards):
        if table is None or Covered.told_by(table).rejects_bytes > rejects_bytes:
            break
        last = Covered.told_by(table)
        seen.first_seen(table["id"].combine_chunks())
    return last, seen


def _ids_of(path: AnyPath) -> pa.Table | None:
    try:
        return read_table(path, ["id"])
    except DamagedError:
        return None


class _Part(NamedTuple):
    """A file of rejects: the bytes from `start` to before `stop` of all."""

    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"rejects-{self.start:012d}-{self.stop:012d}.jsonl"


_PART_NAME = re.compile(r"rejects-(\d{12,})-(\d{12,})\.jsonl")


def _parts(names: set[str]) -> list[_Part]:
    found = (_PART_NAME.fullmatch(name) for name in names)
    return sorted(_Part(int(match[1]), int(match[2])) for match in found if match)


def _joined(parts: list[_Part]) -> list[_Part]:
    """Returns the parts that follow one another from byte 0 on."""
    joined: list[_Part] = []
    for part in parts:
        if part.start == (joined[-1].stop if joined else 0):
            joined.append(part)
    return joined


class Rejects:
    """The rejects of an ingest, one JSON object a line, kept beside the shards until all are known."""

    def __init__(self, run: RunDirectory, covered: Covered) -> None:
        self._run = run
        self._waiting = bytearray()
        self._parts: list[_Part] = []
        self.bytes = covered.rejects_bytes
        """How many bytes they are."""
        for part in _parts(storage.names(run.shards)):
            self._take_over(part, covered.rejects_bytes)

    def _take_over(self, part: _Part, end: int) -> None:
        """Keeps of a part that is there what lies before byte `end`; where the shards end, so does what they cover."""
        expected = self._parts[-1].stop if self._parts else 0
        if part.start == expected and part.stop <= end:
            self._parts.append(part)
            return
        if part.start == expected < end:
            self._put(part.start, storage.read_bytes(self._run.shards / part.name)[: end - part.start])
        storage.remove(self._run.shards / part.name)

    def write(self, file: str, rows: pa.Table) -> None:
        """Adds the rows of a table as `lmsys_ray.readers.READ` that have a reason."""
        for row in rows.filter(rows["reason"].is_valid()).select(["number", "id", "reason"]).to_pylist():
            record = {"file": file, "row": row["number"], "id": row["id"], "reason": row["reason"]}
            line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
            self.bytes += len(line)
            self._waiting += line
        if len(self._waiting) >= _PART_BYTES:
            self.flush(self.bytes)

    def flush(self, covered: int) -> None:
        """Puts down what waits, before a shard says that it covers the first `covered` bytes."""
        start = self.bytes - len(self._waiting)
        place = max(0, covered - start)
        for at, data in ((start, self._waiting[:place]), (start + place, self._waiting[place:])):
            self._put(at, bytes(data))
        self._waiting.clear()

    def _put(self, start: int, data: bytes) -> None:
        if data:
            part = _Part(start, start + len(data))
            storage.write_bytes(self._run.shards / part.name, data)
            self._parts.append(part)

    def publish(self) -> None:
        """Makes them the run's rejects; raises `DamagedError` where a part is not as it was written."""
        with storage.written_whole(self._run.rejects) as aside, aside.open("wb") as file:
            for data in ahead(self._read, self._parts):
                file.write(data)

    def _read(self, part: _Part) -> bytes:
        path = self._run.shards / part.name
        try:
            data = storage.read_bytes(path)
        except FileNotFoundError:
            data = b""
        if len(data) != part.stop - part.start:
            storage.remove(path)  # so that the next ingest goes on before it
            raise DamagedError(f"{path} is damaged or gone; a start of score.py makes it again")
        return data
