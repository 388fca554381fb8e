"""Reads files by tasks on the cluster."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray.data

from lmsys_ray.cluster.dispatch import raise_member_errors
from lmsys_ray.cluster.excluded_nodes import avoiding
from lmsys_ray.cluster.pool import ENCODE_CPUS
from lmsys_ray.cluster.read_guard import Guard
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.data.readers import BEGINNING, LARGEST_CELL, ReadPosition, read_rows
from lmsys_ray.data.readers.parts import Part, parts_of
from lmsys_ray.data.schemas.reading import PLAIN, Reading
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.storage.files import path_of

_MOST_READS = 64
"""The most tasks for whole files; of more, each task reads several, since a task costs more than a small file."""

_YIELDED_BYTES, _YIELDED_TABLES = 1 << 20, 256
"""Small tables are gathered up to one of these before a task yields them."""

_READ_BLOCK_BYTES = 16 << 20

_GC_OBJECTS = 50_000
"""Objects made between two searches for cycles. Records are many objects without any: after 700 each costs a tenth."""


@dataclass(frozen=True)
class DistributedReader:
    """An iterable of (file, rows as `lmsys_ray.data.readers.READ`) over files, in order; each iteration reads them.

    Tasks on the cluster read, several of them parts of one large file. Ray Data limits how far they run ahead, so that
    memory stays flat.
    """

    files: Sequence[str]
    form: CellForm
    limit: int | None
    start: ReadPosition = BEGINNING
    """Where to begin in the first file."""
    guard: Guard | None = None
    """Guards the reading of each file."""
    excluded: frozenset[str] = frozenset()
    """Ids of nodes on which no task may run."""
    largest_cell: int = LARGEST_CELL
    reading: Reading = PLAIN
    names: Sequence[str] = ()
    """Where ids are FILE:ROW: the name of each file in them."""

    def resume_at(self, file: str, start: ReadPosition, rows: int) -> "DistributedReader":
        """Returns a reader that begins at `start` in `file`, before which `rows` rows were read in all."""
        place = self.files.index(file)
        left = None if self.limit is None else self.limit - rows
        guard = self.guard and self.guard.from_file(place)
        return replace(self, files=self.files[place:], names=self.names[place:], limit=left, start=start, guard=guard)

    def __iter__(self) -> Iterator[tuple[str, pa.Table]]:
        tasks = self._tasks()
        dataset: ray.data.Dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks))
        dataset.context.execution_options.preserve_order = True
        dataset.context.target_max_block_size = _READ_BLOCK_BYTES
        options = {"form": self.form, "largest_cell": self.largest_cell, "reading": self.reading}
        reading = partial(_read, limit=self.limit, guard=self.guard, options=options)
        few_files: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "num_cpus": _cpus(tasks)}
        dataset = dataset.map_batches(reading, **few_files, **avoiding(self.excluded))
        left = self.limit
        with raise_member_errors():
            for block in cast(Iterator[pa.Table], dataset.iter_batches(batch_size=None, batch_format="pyarrow")):
                numbers = block["file"].to_numpy()
                ends = [*np.flatnonzero(np.diff(numbers)) + 1, block.num_rows]
                for first, end in zip([0, *ends[:-1]], ends, strict=True):
                    rows = block.slice(first, end - first).drop_columns("file").slice(0, left)
                    left = None if left is None else left - rows.num_rows
                    if rows.num_rows:
                        yield self.files[numbers[first]], rows
                if left == 0:
                    return

    def _tasks(self) -> list[dict[str, Any]]:
        """Returns what each task reads: a part of a large file, or one or more whole files."""
        starts = [self.start, *[BEGINNING] * (len(self.files) - 1)]
        together = -(-len(self.files) // _MOST_READS)
        tasks: list[list[dict[str, Any]]] = []
        several = False
        for number, parts in enumerate(prefetched(self._parts, zip(self.files, starts, strict=True))):
            items = [self._item(number, part) for part in parts]
            if len(items) == 1 and several and len(tasks[-1]) < together:
                tasks[-1] += items
            else:
                tasks += [[item] for item in items]
            several = len(items) == 1
        return [{"items": items} for items in tasks]

    def _parts(self, begin: tuple[str, ReadPosition]) -> list[Part]:
        path, start = begin
        if isinstance(path_of(path), Path) or len(self.files) < _MOST_READS:  # else asking each would take long
            return parts_of(path, start, self.limit, self.reading, self.largest_cell)
        return [Part(start)]

    def _item(self, number: int, part: Part) -> dict[str, Any]:
        path = self.files[number].encode("utf-8", "surrogateescape")
        name = _name(self.names[number]) if self.names else ""
        place = {"number": number, "path": path, "name": name}
        return place | {"at": part.start.at, "row": part.start.row, "rows": part.rows}


def read_files(
    files: Sequence[str],
    form: CellForm,
    limit: int | None,
    guard: Guard | None = None,
    excluded: frozenset[str] = frozenset(),
    largest_cell: int = LARGEST_CELL,
    reading: Reading = PLAIN,
    names: Sequence[str] = (),
) -> DistributedReader:
    """Returns a reader of the rows of all files in order, at most `limit` of them."""
    return DistributedReader(
        files,
        form,
        limit,
        guard=guard,
        excluded=excluded,
        largest_cell=largest_cell,
        reading=reading,
        names=names,
    )


def _cpus(tasks: Sequence[Mapping[str, Any]]) -> float:
    """Returns the CPUs that a task reserves: a whole one for a part, since each further process costs seconds."""
    parts = any(item["rows"] is not None for task in tasks for item in task["items"])
    return 1 if parts and ray.cluster_resources().get("CPU", 0) >= 2 else ENCODE_CPUS


def _name(name: str) -> str:
    """Returns the name of a file as UTF-8 can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read(batch: pa.Table, limit: int | None, guard: Guard | None, options: dict[str, Any]) -> Iterator[pa.Table]:
    """Yields the rows of what `batch` lists, gathered over small files, since each yield costs Ray some ms."""
    gc.set_threshold(_GC_OBJECTS)
    waiting: list[pa.Table] = []
    left = limit
    for item in (item for task in batch["items"].to_pylist() for item in task):
        if left == 0:
            break
        path, start = item["path"].decode("utf-8", "surrogateescape"), ReadPosition(item["at"], item["row"])
        most = min((rows for rows in (left, item["rows"]) if rows is not None), default=None)
        with guard.reading(item["number"], start.at) if guard else nullcontext():
            for rows in read_rows(path, limit=most, start=start, name=item["name"], **options):
                left = None if left is None else left - rows.num_rows
                waiting.append(rows.append_column("file", pa.repeat(pa.scalar(item["number"]), rows.num_rows)))
                if sum(table.nbytes for table in waiting) >= _YIELDED_BYTES or len(waiting) >= _YIELDED_TABLES:
                    yield pa.concat_tables(waiting)
                    waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)
