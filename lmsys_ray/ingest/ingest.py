"""Cuts files of conversations into numbered shards of one size, and lists the rejects.

An interrupted ingest resumes after its last whole shard and makes the same shards and rejects, to the byte, as one that
was not interrupted, since the rows alone decide where a shard ends.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import ReadPosition
from lmsys_ray.errors import RunError
from lmsys_ray.ingest.rejects_log import RejectsLog
from lmsys_ray.ingest.resume import Covered, read_covered
from lmsys_ray.ingest.shard_writer import ShardWriter
from lmsys_ray.ingest.unique_ids import SeenIds
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested
from lmsys_ray.run_directory.shard_sizes import ShardSizes

_MOST_WARNED = 10
"""How many warnings are kept as sentences."""


@runtime_checkable
class Restartable(Protocol):
    """Batches whose reading can begin in the middle."""

    def resume_at(self, file: str, start: ReadPosition, rows: int) -> Iterable[tuple[str, pa.Table]]:
        """Returns the batches from `start` in `file`; `rows` rows come before it in all."""


def ingest(
    batches: Iterable[tuple[str, pa.Table]],
    run: RunDirectory,
    shard_rows: int | ShardSizes,
    fail_on_reject: bool,
    on_rows: Callable[[int], None],
    files: Sequence[str] | None = None,
    carried: Sequence[str] = (),
) -> Ingested:
    """Cuts `batches` of (file, rows as `lmsys_ray.data.readers.READ`) into the run's shards and rejects.

    The first row with an id counts, and later ones are rejects. A reject without an id has no line in the submission;
    any other has one. Rows that whole shards of `run` cover are not read again if `batches` is `Restartable`, and are
    skipped otherwise. `on_rows` receives the number of rows done. `files` are those of the batches, in order: shards
    name a file by its place there, or by its path in runs that an earlier version began. `carried` names the columns
    of `lmsys_ray.data.carried.CARRIED` that the batches have and shards get.

    Raises `RunError` at the first reject if `fail_on_reject`, and where the run directory cannot be written.
    """
    done, seen = read_covered(run)
    on_rows(done.counts.rows)
    rejects = RejectsLog(run, done.rejects_bytes)
    sizes = ShardSizes.even(shard_rows) if isinstance(shard_rows, int) else shard_rows
    with closing(ShardWriter(run, sizes, done.counts, carried)) as shards:
        counts = replace(done.counts)
        for file, batch in _remaining(batches, done, files):
            place = files.index(file) if files is not None and run.binding.ingest else None
            for part in shards.parts(with_repeats_marked(batch, seen)):
                if fail_on_reject:
                    _refuse_rejects(file, part)
                rejects.write(file, part)
                _count(part, counts)
                _warn(file, part, counts)
                # Rows without a new id wait for one with a new id: `done` must name the file of such a row.
                if shards.add(part):
                    last = part["number"][-1].as_py()
                    done = Covered(replace(counts), file, place, last, _start(part), rejects.bytes)
                if shards.is_full():
                    rejects.flush(done.rejects_bytes)
                    shards.flush(done)
            on_rows(batch.num_rows)
        rejects.flush(done.rejects_bytes)
        shards.finish(done)
        rejects.publish()
        return replace(counts, shards=shards.count)


def _remaining(
    batches: Iterable[tuple[str, pa.Table]], done: Covered, files: Sequence[str] | None
) -> Iterator[tuple[str, pa.Table]]:
    """Yields the batches without the rows that `done` covers."""
    skipped = done.counts.rows
    file = done.file if files is None or done.place is None else files[done.place]
    if skipped and isinstance(batches, Restartable) and (files is None or file in files):
        skipped = done.row - done.start.row + 1
        batches = batches.resume_at(file, done.start, done.counts.rows - skipped)
    for file, batch in batches:
        left = batch.slice(skipped)
        skipped = max(0, skipped - batch.num_rows)
        if left.num_rows:
            yield file, left


def _start(part: pa.Table) -> ReadPosition:
    return ReadPosition(part["start_at"][-1].as_py(), part["start_row"][-1].as_py())


def with_repeats_marked(batch: pa.Table, seen: SeenIds) -> pa.Table:
    """Adds the columns `kept` (bool) and `bytes` (int64, of kept texts), and a reason to rows whose id was seen."""
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
            f"{file}, row {row['number']} (id {row['id']}): {row['reason']}; mend it, or continue without such rows "
            "with --set on_bad_row=reject"
        )


def _count(part: pa.Table, counts: Ingested) -> None:
    rejected = part["reason"].is_valid()
    counts.rows += part.num_rows
    counts.lines += pc.sum(part["kept"]).as_py()
    counts.rejects += pc.sum(rejected).as_py()
    counts.unscored += pc.sum(pc.and_(part["kept"], rejected)).as_py()


def _warn(file: str, part: pa.Table, counts: Ingested) -> None:
    found = part.filter(part["warning"].is_valid()).select(["number", "id", "warning"])
    counts.warnings += found.num_rows
    sentences = [
        f"{file}, row {row['number']} (id {row['id']}): {row['warning']}"
        for row in found.slice(0, _MOST_WARNED - len(counts.warned)).to_pylist()
    ]
    counts.warned = [*counts.warned, *sentences]  # not in place, since copies share the list
