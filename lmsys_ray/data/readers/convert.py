"""Turns records of any schema into the rows of shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers.records import Records, text_column
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.data.schemas.row import TIE, B, Cell, RawRecords, Record, Refused, Row
from lmsys_ray.data.schemas.values import name_of, parsed
from lmsys_ray.data.turns import BadCellError, json_list, without_lone_surrogates

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
        self._reading, self._schema, self._number, self._file = reading, reading.of, number, file
        self._ids: list[str | None] = []
        self._cells: dict[str, list[str | None]] = {name: [] for name in CELLS}
        self._carried: dict[str, list[Any]] = {name: [] for name in reading.carried}
        self._named = {name: (name, *self._schema.carries.get(name, ())) for name in reading.carried}
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
            rows = self._schema.rows(record, self._reading.pairs)
        except BadCellError as error:
            self._fail(str(error), identity)
            return
        for row in rows:
            self._add_row(row, identity, record)
            if warning or row.warning:
                self._warnings[len(self._ids) - 1] = warning or row.warning or ""

    def _add_row(self, row: Row, identity: str | None, record: Record) -> None:
        given: list[Cell] = [row.prompt, row.first, row.second]
        cells = [_text(cell) for cell in given]
        if self._reading.id == "hash":
            identity = _digest(cells)
        elif self._reading.id == "row":
            identity = self._row_id()
        elif identity is not None:
            identity += row.part
        turned = row.dealt and identity is not None and _chosen_is_b(identity)
        if turned:
            given[1], given[2] = given[2], given[1]
            cells[1], cells[2] = cells[2], cells[1]
        for name, cell, text in zip(CELLS, given, cells, strict=True):
            if cell is not None and not isinstance(cell, str):
                self._typed[name].append(len(self._ids))
            self._cells[name].append(text)
        self._ids.append(identity)
        self._carry(row, record, turned)

    def _row_id(self) -> str:
        return f"{self._file}:{self._number + len(self._ids)}"

    def _fail(self, reason: str, identity: str | None) -> None:
        self._faults[len(self._ids)] = reason
        self._ids.append(self._row_id() if self._reading.id == "row" else identity)
        for values in (*self._cells.values(), *self._carried.values()):
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
                values.append(_first_name(record, self._named[name]))

    def records(self, at: int) -> Records:
        """Returns all rows."""
        columns = [text_column(values) for values in (self._ids, *self._cells.values())]
        carried = {name: pa.array(values, CARRIED.field(name).type) for name, values in self._carried.items()}
        return Records(at, columns, self._faults, self._typed, self._warnings, carried)


def _first_name(record: Record, columns: Sequence[str]) -> str | None:
    """Returns the name in the first of `columns` that has one."""
    for column in columns:
        name = name_of(record, column)
        if name is not None:
            return name
    return None


def _text(cell: Cell) -> str | None:
    """Returns a cell as a CSV would hold it."""
    if cell is None or isinstance(cell, str):
        return cell if cell is None else without_lone_surrogates(cell)
    return json_list(cell)


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
