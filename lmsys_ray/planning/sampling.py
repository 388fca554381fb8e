"""Reads the input as a run does, counts its rows, and keeps a sample of those that members would score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.members.protocol import CONVERSATIONS

_MOST_BYTES = 256 << 20
"""The texts of a sample; of longer ones fewer rows are kept."""

_SEED = 20_240_504


class Sample:
    """A uniform sample of a stream of rows, in memory that does not grow with it.

    Each row has a random key, and those with the least are kept: a reservoir of which any smaller part is one, too.
    """

    def __init__(self, rows: int, most_bytes: int = _MOST_BYTES) -> None:
        self._rows = rows
        self._most_bytes = most_bytes
        self._random = np.random.default_rng(_SEED)
        self._keys = np.empty(0)
        self._kept: pa.Table = CONVERSATIONS.empty_table()

    def add(self, rows: pa.Table) -> None:
        """Considers each of some rows with the columns of `CONVERSATIONS`."""
        keys = self._random.random(rows.num_rows)
        if len(self._keys) >= self._rows:
            (taken,) = np.nonzero(keys < self._keys.max())
            keys, rows = keys[taken], rows.take(taken)
        if not rows.num_rows:
            return
        keys, both = np.concatenate([self._keys, keys]), pa.concat_tables([self._kept, rows])
        if len(keys) > self._rows:
            places = np.sort(np.argpartition(keys, self._rows)[: self._rows])
            keys, both = keys[places], both.take(places)
        self._keys, self._kept = keys, both.combine_chunks()
        while self._kept.nbytes > self._most_bytes and len(self._keys) > 1:
            self._rows = max(1, len(self._keys) // 2)
            places = np.sort(np.argpartition(self._keys, self._rows)[: self._rows])
            self._keys, self._kept = self._keys[places], self._kept.take(places).combine_chunks()

    @property
    def table(self) -> pa.Table:
        """The rows that were kept, in the order of the input."""
        return self._kept


@dataclass
class Counts:
    """What was counted of the rows that were read."""

    rows: int = 0
    lines: int = 0
    """Rows with an id of their own, each of which has a line in the submission."""
    scorable: int = 0
    """Rows that members score."""
    warnings: int = 0
    text_bytes: int = 0
    """Of the cells of the scorable rows, UTF-8."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows were rejected, by reason."""

    @property
    def rejects(self) -> int:
        """Rows that members do not score."""
        return self.reasons.total()


def count_rows(
    tables: Iterator[pa.Table],
    sample: Sample,
    with_repeats_marked: Callable[[pa.Table], pa.Table],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Counts:
    """Counts the rows of `tables`, with the columns of `lmsys_ray.data.readers.READ`, and adds them to `sample`."""
    counts = Counts()
    for table in tables:
        rows = with_repeats_marked(table)
        good = rows.filter(rows["reason"].is_null())
        counts.rows += rows.num_rows
        counts.lines += pc.sum(rows["kept"]).as_py() or 0
        counts.warnings += rows.num_rows - rows["warning"].null_count
        counts.text_bytes += pc.sum(good["bytes"]).as_py() or 0
        for reason in rows["reason"].drop_null().to_pylist():
            counts.reasons[reason] += 1
        sample.add(_conversations(good, counts.scorable))
        counts.scorable += good.num_rows
        on_rows(rows.num_rows)
    return counts


def _conversations(rows: pa.Table, first: int) -> pa.Table:
    numbers = pa.array(np.arange(first, first + rows.num_rows), pa.int64())
    return pa.table([numbers, rows["id"], *(rows[cell] for cell in CELLS)], schema=CONVERSATIONS)


def limited(tables: Iterator[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    """Yields the first `limit` rows of tables (None: all)."""
    left = limit
    while left is None or left > 0:
        table = next(tables, None)
        if table is None:
            return
        table = table.slice(0, left)
        left = None if left is None else left - table.num_rows
        yield table
