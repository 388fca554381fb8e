"""Turns records of any schema into the rows of shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers.records import Records, text_columns
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.data.schemas.row import TIE, B, Cell, RawRecords, Record, Refused, Row
from lmsys_ray.data.schemas.values import name_of, parsed
from lmsys_ray.data.turns import BadCellError, Turns, json_text, without_lone_surrogates

_HASH_BYTES = 12


def converted(raw: RawRecords, reading: Reading, number: int, file: str) -> Records:
    """Returns the rows of records; the first has the `number` in `file`, whose name begins the ids of rows without."""
    made = _Made(reading, number, file)
    for position, record in enumerate(raw.records):
        made.add(record, raw.warnings.get(position))
    return made.records(raw.at)


class _Made:
    """Rows that become one `Records`."""

    def __init__(self, reading: Reading, number: int, file: str) -> None:
        self._reading, self._number, self._file = reading, number, file
        self._rows: list[list[str | None]] = []
        self._carried: dict[str, list[Any]] = {name: [] for name in reading.carried}
        self._faults: dict[int, str] = {}
        self._warnings: dict[int, str] = {}
        self._typed: dict[str, list[int]] = {name: [] for name in CELLS}

    def add(self, record: Record | Refused, warning: str | None) -> None:
        """Adds the rows of a record, one for a record that cannot be used."""
        if isinstance(record, Refused):
            self._fail(record.reason, record.id)
            return
        record = self._reading.renamed(record)
        identity = self._reading.identity(record) if self._reading.id == "column" else None
        try:
            rows = self._reading.of.rows(record, self._reading.pairs)
        except BadCellError as error:
            self._fail(str(error), identity)
            return
        for row in rows:
            self._add_row(row, identity, record)
            if warning or row.warning:
                self._warnings[len(self._rows) - 1] = warning or row.warning or ""

    def _add_row(self, row: Row, identity: str | None, record: Record) -> None:
        cells = [_text(cell) for cell in (row.prompt, row.first, row.second)]
        if self._reading.id == "hash":
            identity = _digest(cells)
        elif self._reading.id == "row":
            identity = self._row_id()
        elif identity is not None:
            identity += row.part
        turned = row.dealt and identity is not None and _chosen_is_b(identity)
        if turned:
            cells[1], cells[2] = cells[2], cells[1]
        position = len(self._rows)
        for name, cell in zip(CELLS, (row.prompt, row.first, row.second), strict=True):
            if cell is not None and not isinstance(cell, str):
                self._typed[name].append(position)
        self._rows.append([identity, *cells])
        self._carry(row, record, turned)

    def _row_id(self) -> str:
        return f"{self._file}:{self._number + len(self._rows)}"

    def _fail(self, reason: str, identity: str | None) -> None:
        self._faults[len(self._rows)] = reason
        known = self._row_id() if self._reading.id == "row" else identity
        self._rows.append([known, *[None] * len(CELLS)])
        for values in self._carried.values():
            values.append(None)

    def _carry(self, row: Row, record: Record, turned: bool) -> None:
        label = row.label if row.label in (None, TIE) or not turned else B - row.label
        a, b = reversed(row.models) if turned else row.models
        known: dict[str, Any] = {"label": label, "model_a": a, "model_b": b}
        for name, values in self._carried.items():
            if name in known:
                values.append(known[name])
            elif name == "tags":
                values.append(tags_of(record.get(name)))
            else:
                values.append(self._named(record, name))

    def _named(self, record: Record, name: str) -> str | None:
        names = (name, *self._reading.of.carries.get(name, ()))
        return next((found for name in names if (found := name_of(record, name)) is not None), None)

    def records(self, at: int) -> Records:
        """Returns all rows."""
        columns = text_columns(self._rows, 1 + len(CELLS), "surrogatepass")
        carried = {name: pa.array(values, CARRIED.field(name).type) for name, values in self._carried.items()}
        return Records(at, columns, self._faults, self._typed, self._warnings, carried)


def _text(cell: Cell) -> str | None:
    """Returns a cell as a CSV would hold it."""
    if cell is None or isinstance(cell, str):
        return cell if cell is None else without_lone_surrogates(cell)
    return json_text(Turns(list(cell)))


def _digest(cells: Sequence[str | None]) -> str:
    return hashlib.blake2b(json.dumps(cells).encode(), digest_size=_HASH_BYTES).hexdigest()


def _chosen_is_b(identity: str) -> bool:
    """Returns whether the chosen response becomes response B: a coin that is thrown once for each id."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 2 == 1


def tags_of(value: Any) -> list[str] | None:
    """Returns the tags in a value: a list of them, typed or as JSON, or one text; None where there is none."""
    try:
        found = parsed(value)
    except BadCellError:
        found = str(value)
    if found is None or found == "":
        return None
    return [str(tag) for tag in _items(found) if tag is not None]


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]
