"""The rejects of an ingest, written in parts beside the shards until the ingest is complete."""

import json

import pyarrow as pa

from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.published_rejects import Part, find_parts, publish, read_part
from lmsys_ray.storage import files as storage

_PART_BYTES = 4 << 20
"""A part is written once this many bytes wait."""


class RejectsLog:
    """The rejects of an ingest, one JSON object a line; the first `covered` bytes of an earlier start are kept."""

    def __init__(self, run: RunDirectory, covered: int) -> None:
        self._run = run
        self._waiting = bytearray()
        self._parts: list[Part] = []
        self.bytes = covered
        """The size of all rejects so far."""
        for part in find_parts(storage.names(run.shards)):
            self._take_over(part, covered)

    def _take_over(self, part: Part, end: int) -> None:
        """Keeps what an existing part holds of the bytes before `end`, up to which the shards cover the rejects."""
        expected = self._parts[-1].stop if self._parts else 0
        if part.start == expected and part.stop <= end:
            self._parts.append(part)
            return
        if part.start == expected < end:
            self._put(part.start, read_part(self._run, part)[: end - part.start])
        storage.remove(self._run.shards / part.name)

    def write(self, file: str, rows: pa.Table) -> None:
        """Adds the rows of a table as `lmsys_ray.data.readers.READ` that have a reason."""
        for row in rows.filter(rows["reason"].is_valid()).select(["number", "id", "reason"]).to_pylist():
            record = {"file": file, "row": row["number"], "id": row["id"], "reason": row["reason"]}
            # A file name that is not UTF-8 is written with escapes.
            line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
            self.bytes += len(line)
            self._waiting += line
        if len(self._waiting) >= _PART_BYTES:
            self.flush(self.bytes)

    def flush(self, covered: int) -> None:
        """Writes what waits, before a shard is written that covers the first `covered` bytes.

        The parts are cut there.
        """
        start = self.bytes - len(self._waiting)
        place = max(0, covered - start)
        for at, data in ((start, self._waiting[:place]), (start + place, self._waiting[place:])):
            self._put(at, bytes(data))
        self._waiting.clear()

    def _put(self, start: int, data: bytes) -> None:
        if data:
            part = Part.of(start, data)
            storage.write_bytes(self._run.shards / part.name, data)
            self._parts.append(part)

    def publish(self) -> None:
        """Writes all parts as the run's list of rejects; raises `DamagedError` where a part is damaged or missing."""
        publish(self._run, self._parts)
