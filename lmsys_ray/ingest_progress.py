"""How far an ingest has come, told by the shards themselves: an interrupted one goes on behind its last whole shard.

Each shard carries, in its metadata, how much of the input it and those before it cover. The rejects found on the way
lie in a file beside the shards, of which a shard tells how many bytes belong to what it covers.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.readers import BEGINNING, Start
from lmsys_ray.run import RunDirectory, ahead, read_table, written_whole
from lmsys_ray.seen_ids import SeenIds

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
    path = _rejects_path(run)
    rejects_bytes = path.stat().st_size if path.exists() else 0
    for table in ahead(_ids_of, _shards(run)):
        if table is None or Covered.told_by(table).rejects_bytes > rejects_bytes:
            break
        last = Covered.told_by(table)
        seen.first_seen(table["id"].combine_chunks())
    return last, seen


def _shards(run: RunDirectory) -> Iterator[Path]:
    number = 0
    while (path := run.shard(number)).exists():
        yield path
        number += 1


def _ids_of(path: Path) -> pa.Table | None:
    try:
        return read_table(path, ["id"])
    except DamagedError:
        return None


def _rejects_path(run: RunDirectory) -> Path:
    return run.path / "shards" / run.rejects.name


class Rejects:
    """The rejects of an ingest, one JSON object a line, kept beside the shards until all are known."""

    def __init__(self, run: RunDirectory, covered: Covered) -> None:
        self._run = run
        self._path = _rejects_path(run)
        self.bytes = covered.rejects_bytes
        """How long the file is."""
        with self._writing():
            self._path.parent.mkdir(exist_ok=True)
            self._file: BinaryIO = self._path.open("ab")
            self._file.truncate(self.bytes)

    def write(self, file: str, rows: pa.Table) -> None:
        """Adds the rows of a table as `lmsys_ray.readers.READ` that have a reason."""
        for row in rows.filter(rows["reason"].is_valid()).select(["number", "id", "reason"]).to_pylist():
            record = {"file": file, "row": row["number"], "id": row["id"], "reason": row["reason"]}
            line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
            self.bytes += len(line)
            with self._writing():
                self._file.write(line)

    def flush(self) -> None:
        """Hands what was written to the system, so that a process killed afterwards loses nothing of it."""
        with self._writing():
            self._file.flush()

    def publish(self) -> None:
        """Makes them the run's rejects."""
        self.flush()
        with written_whole(self._run.rejects) as aside:
            shutil.copyfile(self._path, aside)

    def close(self) -> None:
        with self._writing():
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self._path} cannot be written ({error.strerror}); mend that and start the same command again, "
                "what is done is kept, or choose another --output"
            ) from None
