"""Files of conversations become numbered shards of one size and a list of rejects.

An ingest that was interrupted goes on behind its last whole shard and makes the same shards and rejects, to the byte,
as one that was not: where a shard ends depends on the rows alone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.conversations import CELLS, SHARD
from lmsys_ray.errors import RunError
from lmsys_ray.ingest_progress import Covered, Ingested, Rejects, covered
from lmsys_ray.readers import Start
from lmsys_ray.run import RunDirectory, write_table
from lmsys_ray.seen_ids import SeenIds

_SHARD_BYTES = 64 << 20
"""A shard is cut early where its texts reach this size, so that memory stays flat whatever the size of cells."""

_WRITERS = 2
"""Threads that compress and write shards, each with one shard at a time, beside the one that cuts them."""


@runtime_checkable
class Restartable(Protocol):
    """Batches that need not be read from the beginning."""

    def beginning(self, file: str, start: Start, rows: int) -> Iterable[tuple[str, pa.Table]]:
        """Returns the batches from `start` in `file` on, before which `rows` rows were read in all."""


def ingest(
    batches: Iterable[tuple[str, pa.Table]],
    run: RunDirectory,
    shard_rows: int,
    fail_on_reject: bool,
    on_rows: Callable[[int], None],
) -> Ingested:
    """Cuts `batches` of (file, rows as `lmsys_ray.readers.READ`) into the run's shards and rejects.

    The first row of an id counts; a later one is a reject. A row without an id is a reject and has no line in the
    submission; any other reject keeps its line. Rows that whole shards of `run` cover already are not read again where
    `batches` is `Restartable`, and passed over where it is not. `on_rows` is told the rows that are dealt with.

    Raises `RunError` at the first reject where `fail_on_reject`, and where the run directory cannot be written.
    """
    done, seen = covered(run)
    on_rows(done.counts.rows)
    rejects = Rejects(run, done)
    with closing(_ShardWriter(run, shard_rows, done.counts.shards)) as shards:
        counts = replace(done.counts)
        for file, batch in _behind(batches, done):
            for part in shards.parts(_with_repeats_marked(batch, seen)):
                if fail_on_reject:
                    _refuse_rejects(file, part)
                rejects.write(file, part)
                _count(part, counts)
                # Rows that bring nothing new wait for one that does: it is in the file that `file` names first.
                if shards.add(part):
                    done = Covered(replace(counts), file, part["number"][-1].as_py(), _start(part), rejects.bytes)
                if shards.is_full():
                    rejects.flush(done.rejects_bytes)
                    shards.flush(done)
            on_rows(batch.num_rows)
        rejects.flush(done.rejects_bytes)
        shards.finish(done)
        rejects.publish()
        return replace(counts, shards=shards.count)


def _behind(batches: Iterable[tuple[str, pa.Table]], done: Covered) -> Iterator[tuple[str, pa.Table]]:
    """Yields the batches without the rows that are done."""
    skipped = done.counts.rows
    if skipped and isinstance(batches, Restartable):
        skipped = done.row - done.start.row + 1
        batches = batches.beginning(done.file, done.start, done.counts.rows - skipped)
    for file, batch in batches:
        left = batch.slice(skipped)
        skipped = max(0, skipped - batch.num_rows)
        if left.num_rows:
            yield file, left


def _start(part: pa.Table) -> Start:
    return Start(part["start_at"][-1].as_py(), part["start_row"][-1].as_py())


def _with_repeats_marked(batch: pa.Table, seen: SeenIds) -> pa.Table:
    """Adds the columns `kept` (bool) and `bytes` (int64, of the kept texts); an id seen before gives a row a reason."""
    has_id = batch["id"].is_valid().to_numpy()
    kept = has_id.copy()
    kept[has_id] = seen.first_seen(batch["id"].drop_null().combine_chunks())
    repeated = has_id & ~kept
    if repeated.any():
        reason = pc.if_else(pa.array(repeated), "id repeats that of an earlier row", batch["reason"])
        batch = batch.set_column(batch.schema.get_field_index("reason"), "reason", reason)
    lengths = [pc.fill_null(pc.binary_length(batch[name]), 0).to_numpy() for name in CELLS]
    sizes = np.where(kept, sum(lengths), 0)
    return batch.append_column("kept", pa.array(kept)).append_column("bytes", pa.array(sizes, pa.int64()))


def _refuse_rejects(file: str, rows: pa.Table) -> None:
    bad = rows.filter(rows["reason"].is_valid()).slice(0, 1).to_pylist()
    for row in bad:
        raise RunError(
            f"{file}, row {row['number']} (id {row['id']}): {row['reason']}; mend it, or go on without such rows "
            "by --set on_bad_row=reject"
        )


def _count(part: pa.Table, counts: Ingested) -> None:
    rejected = part["reason"].is_valid()
    counts.rows += part.num_rows
    counts.lines += pc.sum(part["kept"]).as_py()
    counts.rejects += pc.sum(rejected).as_py()
    counts.unscored += pc.sum(pc.and_(part["kept"], rejected)).as_py()


class _ShardWriter:
    """Gathers kept rows, numbers them over the run and has a shard written whenever one is full."""

    def __init__(self, run: RunDirectory, shard_rows: int, count: int) -> None:
        self._run = run
        self._shard_rows = shard_rows
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0
        self.count = count
        """Shards so far."""
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._under_way: deque[Future[None]] = deque()

    def parts(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields `batch` in parts, each of which ends where it fills a shard or with the batch."""
        while batch.num_rows:
            rows = self._rows + np.cumsum(batch["kept"].to_numpy())
            size = self._bytes + np.cumsum(batch["bytes"].to_numpy())
            full = np.flatnonzero((rows >= self._shard_rows) | (size >= _SHARD_BYTES))
            part = batch.slice(0, full[0] + 1 if len(full) else batch.num_rows)
            batch = batch.slice(part.num_rows)
            yield part

    def add(self, part: pa.Table) -> bool:
        """Adds the kept rows of `part` to those that wait; returns whether there are any."""
        kept = pc.sum(part["kept"]).as_py()
        if kept:
            self._waiting.append(part if kept == part.num_rows else part.filter(part["kept"]))
            self._rows += kept
            self._bytes += pc.sum(part["bytes"]).as_py()
        return kept > 0

    def is_full(self) -> bool:
        return self._rows >= self._shard_rows or self._bytes >= _SHARD_BYTES

    def flush(self, done: Covered) -> None:
        """Has the rows that wait, the last of those in `done`, written as a shard."""
        # One chunk a column: how rows came in batches must not show in the bytes.
        table = pa.concat_tables(self._waiting).combine_chunks()
        lines = done.counts.lines
        columns = {
            "row": pa.array(np.arange(lines - self._rows, lines)),
            "rejected": table["reason"].is_valid(),
            **{name: table[name] for name in ("id", *CELLS)},
        }
        # A row rejected as a repeat is not kept, so that every kept reject came with null cells.
        shard = pa.table([columns[field.name] for field in SHARD], schema=SHARD)
        path = self._run.shard(self.count)
        self.count += 1
        covered = replace(done, counts=replace(done.counts, shards=self.count))
        self._waiting, self._rows, self._bytes = [], 0, 0
        while len(self._under_way) >= _WRITERS:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(write_table, covered.sealed_in(shard), path))

    def finish(self, done: Covered) -> None:
        """Writes the rows that are left and returns when all shards are there."""
        if self._rows:
            self.flush(done)
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
