"""Gathers the kept rows of an ingest and writes them as shards."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import SHARD
from lmsys_ray.ingest.resume import Covered
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested
from lmsys_ray.run_directory.shard_sizes import ShardSizes

_SHARD_BYTES = 64 << 20
"""A shard ends early when its texts reach this size, so that large cells do not fill the memory."""


_WRITERS = 2
"""Threads that compress and write shards, one shard each at a time."""


class ShardWriter:
    """Numbers kept rows over the run, and writes a shard in a thread whenever one is full."""

    def __init__(self, run: RunDirectory, sizes: ShardSizes, done: Ingested, carried: Sequence[str] = ()) -> None:
        self._schema = pa.schema([*SHARD, *(CARRIED.field(name) for name in carried)])
        self._run = run
        self._sizes = sizes
        self._room = sizes.room(done.lines)
        """The most rows of the next shard."""
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0
        self.count = done.shards
        """Shards so far, with those of earlier starts."""
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._under_way: deque[Future[None]] = deque()

    def parts(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields `batch` in parts that end where a shard is full; each must be added before the next is taken.

        A part with kept rows ends with one, so that it does not depend on the batches which rows a shard covers.
        """
        while batch.num_rows:
            kept = batch["kept"].to_numpy()
            size = self._bytes + np.cumsum(batch["bytes"].to_numpy())
            full = np.flatnonzero((self._rows + np.cumsum(kept) >= self._room) | (size >= _SHARD_BYTES))
            ends = full[:1] if len(full) else np.flatnonzero(kept)[-1:]
            part = batch.slice(0, ends[0] + 1 if len(ends) else batch.num_rows)
            batch = batch.slice(part.num_rows)
            yield part

    def add(self, part: pa.Table) -> bool:
        """Adds the kept rows of `part` to the rows that wait; returns whether there are any."""
        kept = pc.sum(part["kept"]).as_py()
        if kept:
            self._waiting.append(part if kept == part.num_rows else part.filter(part["kept"]))
            self._rows += kept
            self._bytes += pc.sum(part["bytes"]).as_py()
        return kept > 0

    def is_full(self) -> bool:
        """Returns whether the rows that wait fill a shard."""
        return self._rows >= self._room or self._bytes >= _SHARD_BYTES

    def flush(self, done: Covered) -> None:
        """Writes the rows that wait, which are the last that `done` covers, as a shard."""
        # One chunk a column, so that the bytes do not depend on the batches in which rows came.
        table = pa.concat_tables(self._waiting).combine_chunks()
        lines = done.counts.lines
        columns = {
            "row": pa.array(np.arange(lines - self._rows, lines)),
            "rejected": table["reason"].is_valid(),
            **{name: table[name] for name in self._schema.names if name not in ("row", "rejected")},
        }
        # Rows with a repeated id are not kept, and all other rejects have null cells.
        shard = pa.table([columns[field.name] for field in self._schema], schema=self._schema)
        number = self.count
        self.count += 1
        complete = replace(done, counts=replace(done.counts, shards=self.count))
        self._waiting, self._rows, self._bytes = [], 0, 0
        self._room = self._sizes.room(lines)
        while len(self._under_way) >= _WRITERS:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._run.write_shard, number, complete.attach_to(shard)))

    def finish(self, done: Covered) -> None:
        """Writes the rows that are left, and returns once all shards are written."""
        if self._rows:
            self.flush(done)
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        """Ends the threads; shards that are not being written yet are dropped."""
        self._pool.shutdown(cancel_futures=True)
