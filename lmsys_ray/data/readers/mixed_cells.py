"""Warns of cells that are plain text in a file whose cells are mostly lists of turns.

The beginning of a file decides, by rows and never by the tables in which they come, so that every reading agrees,
wherever it begins.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers.checks import PLAIN

_SAMPLED_ROWS, _SAMPLED_BYTES = 1000, 4 << 20
"""A sample ends with the row that reaches one of these."""

_MOST_PLAIN = 0.1
"""The largest share of plain cells in a file whose cells are mostly lists."""


class Sample:
    """Counts the cells at the beginning of a file."""

    def __init__(self) -> None:
        self._rows = self._bytes = self._cells = self._plain = 0

    @classmethod
    def of(cls, tables: Iterable[pa.Table]) -> "Sample":
        """Returns the sample of a file that is read from its beginning, no further than it must be."""
        sample = cls()
        for table in tables:
            sample.add(table)
            if sample.complete:
                break
        return sample

    @property
    def complete(self) -> bool:
        """Whether further rows would not change `mostly_lists`."""
        return (
            self._rows >= _SAMPLED_ROWS
            or self._bytes >= _SAMPLED_BYTES
            or self._plain > _MOST_PLAIN * _SAMPLED_ROWS * len(CELLS)
        )

    @property
    def mostly_lists(self) -> bool:
        """Whether the cells so far are mostly lists."""
        return self._plain <= _MOST_PLAIN * self._cells

    def add(self, table: pa.Table) -> None:
        """Counts the next rows, as `lmsys_ray.data.readers.checks.validated_rows` returns them."""
        if self.complete:
            return
        rows = table.slice(0, _SAMPLED_ROWS - self._rows)
        lengths = [pc.fill_null(pc.binary_length(rows[name]), 0).to_numpy() for name in CELLS]
        before = self._bytes + np.concatenate([[0], np.cumsum(sum(lengths))])
        rows = rows.slice(0, int(np.searchsorted(before[:-1], _SAMPLED_BYTES)))
        self._rows += rows.num_rows
        self._bytes = int(before[rows.num_rows])
        self._cells += len(CELLS) * pc.sum(rows["reason"].is_null(), min_count=0).as_py()
        self._plain += int(np.bitwise_count(rows[PLAIN.name].to_numpy()).sum())


def with_warnings(tables: Iterable[pa.Table], from_beginning: bool, sample: Callable[[], Sample]) -> Iterator[pa.Table]:
    """Yields the tables that `validated_rows` returned without `PLAIN`, and with warnings about mixed cells.

    The first plain cell asks for the `sample` of the file. If it is in the first table, and this is `from_beginning`,
    the sample is made of the tables themselves, which are held until then: few files have plain cells later only.
    """
    tables, mostly_lists = iter(tables), None
    for number, table in enumerate(tables):
        held = [table]
        if mostly_lists is None and table[PLAIN.name].to_numpy().any():
            if from_beginning and not number:
                mostly_lists = Sample.of(_kept(tables, held)).mostly_lists
            else:
                mostly_lists = sample().mostly_lists
        for each in held:
            yield _marked(each, bool(mostly_lists))


def _kept(tables: Iterator[pa.Table], kept: list[pa.Table]) -> Iterator[pa.Table]:
    """Yields the tables already `kept`, then those that follow, which it keeps."""
    yield from kept
    for table in tables:
        kept.append(table)
        yield table


def _marked(table: pa.Table, mostly_lists: bool) -> pa.Table:
    """Returns a table without `PLAIN`, and with a warning for each row with plain cells if lists are expected."""
    bits = table[PLAIN.name].to_numpy()
    table = table.drop_columns(PLAIN.name)
    if not mostly_lists or not bits.any():
        return table
    warnings = table["warning"].to_pylist()
    for place in np.flatnonzero(bits).tolist():
        sentence = _sentence([name for bit, name in enumerate(CELLS) if bits[place] >> bit & 1])
        warnings[place] = f"{warnings[place]}; {sentence}" if warnings[place] else sentence
    position = table.schema.get_field_index("warning")
    return table.set_column(position, table.schema.field(position), pa.array(warnings, pa.string()))


def _sentence(columns: list[str]) -> str:
    names = " and ".join([", ".join(columns[:-1]), columns[-1]] if columns[1:] else columns)
    verb = "are" if columns[1:] else "is"
    return (
        f"{names} {verb} taken as plain text, while most cells of the file are lists of turns; "
        "--set cells=json rejects such cells, --set cells=text takes every cell as text"
    )
