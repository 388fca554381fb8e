"""From raw records to rows that can be used, or that have the reason why not.

What is evidently in order is told by vectorised patterns, which accept nothing that `kept_cell` would refuse or change;
the rest is looked at value by value.
"""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.conversations import CELLS, TYPED, BadCellError, CellForm, kept_cell
from lmsys_ray.readers.records import Records

NEEDED = ("id", *CELLS)

READ = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        *(pa.field(name, pa.large_string()) for name in CELLS),
        pa.field("reason", pa.string()),
        pa.field("start_at", pa.int64()),
        pa.field("start_row", pa.int64()),
    ]
)
"""What `read_rows` yields: the row's number in its file from 1, the record, where it cannot be used the reason, and the
`Start` from which reading comes to it again."""

_SPACE = r"[ \t\r\n]*"
_TURN = r'(?:null|"(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")'
_LIST = rf"{_SPACE}\[{_SPACE}(?:{_TURN}(?:{_SPACE},{_SPACE}{_TURN})*{_SPACE})?\]{_SPACE}\z"
# Text that begins neither with a bracket nor with white space, by anybody's definition of it, holds no turns.
_TEXT = r"\z|[^\[{\x00-\x20\x7f-\xa0\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}\x{3000}]"
_USABLE = {"auto": rf"\A(?:{_TEXT}|{_LIST})", "json": rf"\A{_LIST}", "text": rf"\A(?:\z|[^{TYPED}])"}
_USABLE_ID = r"\A[!-~]+\z"


def checked(records: Records, form: CellForm, start_row: int, number: int, extra: list[str]) -> pa.Table:
    """Returns `records` as a table with the schema `READ` and the columns `extra`, the first row being row `number`.

    A row that cannot be used has a `reason`, null cells, and its id where that could be read.
    """
    rows = len(records.columns[0])
    faults = dict(records.faults)
    identity = _ids(records.columns[0], faults)
    cells = [_cells(name, records, form, faults) for name in CELLS]
    others = [_text(column, {}, "").cast(pa.string()) for column in records.columns[4:]]
    reasons = pa.nulls(rows, pa.string())
    if faults:
        reasons = pa.array([faults.get(position) for position in range(rows)], pa.string())
        cells = [pc.if_else(reasons.is_null(), cell, pa.scalar(None, cell.type)) for cell in cells]
    numbers = pa.array(range(number, number + rows), pa.int64())
    starts = [pa.repeat(pa.scalar(value, pa.int64()), rows) for value in (records.at, start_row)]
    schema = pa.schema([*READ, *(pa.field(name, pa.string()) for name in extra)])
    return pa.table([numbers, identity.cast(pa.string()), *cells, reasons, *starts, *others], schema=schema)


def _ids(column: pa.Array, faults: dict[int, str]) -> pa.Array:
    identity = _text(column, faults, "id")
    usable = pc.fill_null(pc.match_substring_regex(identity, _USABLE_ID), False)
    unusable = {}
    for position in _false(usable):
        reason = _id_fault(identity[position].as_py())
        if reason:
            unusable[position] = faults.setdefault(position, reason)
    return _replaced(identity, dict.fromkeys(unusable))


def _id_fault(identity: str | None) -> str | None:
    if identity is None or not identity.strip():
        return "id is missing or neither text nor a whole number"
    return "id holds a line break" if "\n" in identity or "\r" in identity else None


def _cells(name: str, records: Records, form: CellForm, faults: dict[int, str]) -> pa.Array:
    """Returns a column as shards keep it; a cell that cannot be used is its row's fault."""
    cells = _text(records.columns[NEEDED.index(name)], faults, name)
    usable = pc.fill_null(pc.match_substring_regex(cells, _USABLE[form]), False)
    changed: dict[int, str | None] = {}
    for position in _false(usable):
        if position not in faults:
            cell = cells[position].as_py()
            try:
                kept = _kept(name, cell, form)
            except BadCellError as error:
                faults[position] = f"{name} {error}"
                continue
            if kept != cell:
                changed[position] = kept
    if form == "text":
        changed |= {position: TYPED + cells[position].as_py() for position in records.typed.get(name, ())}
    return _replaced(cells, changed)


def _kept(name: str, cell: str | None, form: CellForm) -> str:
    if cell is None:
        raise BadCellError("is missing")
    return kept_cell(name, cell, form)


def _text(column: pa.Array, faults: dict[int, str], name: str) -> pa.Array:
    """Returns a column as large_string; a value that is no UTF-8 becomes null and its row's fault."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    for position, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError as error:
            values.append(None)
            faults.setdefault(position, f"{name} is not valid UTF-8 (byte 0x{value[error.start]:02x})")
    return pa.array(values, pa.large_string())


def _replaced(column: pa.Array, changed: Mapping[int, str | None]) -> pa.Array:
    """Returns a column with the values of some positions changed."""
    if not changed:
        return column
    return pa.array([changed.get(i, value) for i, value in enumerate(column.to_pylist())], column.type)


def _false(mask: pa.BooleanArray) -> list[int]:
    return pc.indices_nonzero(pc.invert(mask)).to_pylist()
