"""Files of conversations become numbered shards of one size and a list of rejects."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.conversations import CELLS, SHARD
from lmsys_ray.errors import RunError
from lmsys_ray.run import RunDirectory, write_table, written_whole

_SHARD_BYTES = 256 << 20
"""A shard is cut early where its texts reach this size, so that memory stays flat whatever the size of cells."""


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


class SeenIds:
    """The ids met so far, at 16 bytes an id.

    Their 128-bit hashes lie in sorted runs of growing size, merged as in a log-structured merge tree; two of 10^9 ids
    share a hash with a probability below 10^-20.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def first_seen(self, ids: Sequence[str]) -> np.ndarray:
        """Adds `ids` and returns for each whether it was new [ids]."""
        hashes = np.array([hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids], dtype="V16").view(_PAIR)
        ordered, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(ordered), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            known |= run[place] == ordered
        new = np.zeros(len(ids), dtype=bool)
        new[first[~known]] = True
        self._add(ordered[~known])
        return new

    def _add(self, run: np.ndarray) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(run)


_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])


def ingest(
    batches: Iterable[tuple[str, pa.Table]],
    run: RunDirectory,
    shard_rows: int,
    fail_on_reject: bool,
    on_rows: Callable[[int], None],
) -> Ingested:
    """Cuts `batches` of (file, rows as `lmsys_ray.readers.READ`) into the run's shards and rejects.

    The first row of an id counts; a later one is a reject. A row without an id is a reject and has no line in the
    submission; any other reject keeps its line. `on_rows` is told the rows of each batch when they are dealt with.

    Raises `RunError` at the first reject where `fail_on_reject`.
    """
    counts = Ingested()
    shards = _ShardWriter(run, shard_rows)
    with written_whole(run.rejects) as aside, aside.open("w", encoding="utf-8") as rejects:
        for file, batch in _with_repeats_marked(batches):
            _write_rejects(rejects, file, batch, fail_on_reject)
            counts.rows += batch.num_rows
            counts.rejects += batch.num_rows - batch["reason"].null_count
            shards.add(batch.filter(batch["kept"]))
            on_rows(batch.num_rows)
        shards.close()
    counts.lines, counts.unscored, counts.shards = shards.rows, shards.rejected, shards.count
    return counts


def _with_repeats_marked(batches: Iterable[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    """Adds the column `kept` (bool) and gives rows whose id was seen before a reason."""
    seen = SeenIds()
    for file, batch in batches:
        has_id = batch["id"].is_valid().to_numpy()
        kept = has_id.copy()
        kept[has_id] = seen.first_seen(batch["id"].drop_null().to_pylist())
        repeated = pa.array(has_id & ~kept)
        reason = pc.if_else(repeated, "id repeats that of an earlier row", batch["reason"])
        batch = batch.set_column(batch.schema.get_field_index("reason"), "reason", reason)
        yield file, batch.append_column("kept", pa.array(kept))


def _write_rejects(rejects: TextIO, file: str, batch: pa.Table, fail: bool) -> None:
    bad = batch.filter(batch["reason"].is_valid()).select(["number", "id", "reason"])
    for row in bad.to_pylist():
        if fail:
            raise RunError(
                f"{file}, row {row['number']} (id {row['id']}): {row['reason']}; mend it, or go on without such rows "
                "by --set on_bad_row=reject"
            )
        record = {"file": file, "row": row["number"], "id": row["id"], "reason": row["reason"]}
        rejects.write(json.dumps(record, ensure_ascii=False) + "\n")


class _ShardWriter:
    """Gathers kept rows, numbers them over the run and writes a shard whenever one is full."""

    def __init__(self, run: RunDirectory, shard_rows: int) -> None:
        self._run = run
        self._shard_rows = shard_rows
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self.rows = 0
        self.rejected = 0
        self.count = 0

    def add(self, batch: pa.Table) -> None:
        while batch.num_rows:
            part = batch.slice(0, self._shard_rows - self._waiting_rows)
            batch = batch.slice(part.num_rows)
            self._waiting.append(part)
            self._waiting_rows += part.num_rows
            self._waiting_bytes += part.nbytes
            if self._waiting_rows >= self._shard_rows or self._waiting_bytes >= _SHARD_BYTES:
                self._flush()

    def close(self) -> None:
        if self._waiting_rows:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        rejected = table["reason"].is_valid()
        columns = {
            "row": pa.array(np.arange(self.rows, self.rows + table.num_rows)),
            "id": table["id"],
            **{name: table[name] for name in CELLS},
            "rejected": rejected,
        }
        # A row rejected as a repeat is not kept, so that every kept reject came with null cells.
        write_table(pa.table([columns[field.name] for field in SHARD], schema=SHARD), self._run.shard(self.count))
        self.rows += table.num_rows
        self.rejected += pc.sum(rejected).as_py()
        self.count += 1
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
