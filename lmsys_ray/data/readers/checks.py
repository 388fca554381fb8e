"""Turns raw records into usable rows, or rows with the reason why they are not usable.

Vectorised patterns recognise values that are evidently valid, and accept nothing that `kept_cell` would refuse or
change; other values are checked one by one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS, TYPED, BadCellError, CellForm, KeptCell, kept_cell
from lmsys_ray.data.readers.records import Records, too_large

NEEDED = ("id", *CELLS)

READ = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        *(pa.field(name, pa.large_string()) for name in CELLS),
        pa.field("reason", pa.string()),
        pa.field("start_at", pa.int64()),
        pa.field("start_row", pa.int64()),
        pa.field("warning", pa.string()),
    ]
)
"""What `read_rows` yields: the row's number in its file from 1, the record, the reason if it cannot be used, the
`ReadPosition` from which reading reaches it again, and a warning about a record that is used."""

PLAIN = pa.field("plain", pa.uint8(), nullable=False)
"""Beside these: which cells of a usable row are plain text where they might have been lists, a bit for each column."""

_SPACE = r"[ \t\r\n]*"
_TURN = r'(?:null|"(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")'
_LIST = rf"{_SPACE}\[{_SPACE}(?:{_TURN}(?:{_SPACE},{_SPACE}{_TURN})*{_SPACE})?\]{_SPACE}\z"
# Text that begins neither with a bracket nor with white space, by any definition, is not a list of turns.
_TEXT = r"\z|[^\[{\x00-\x20\x7f-\xa0\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}\x{3000}]"
_USABLE = {"auto": rf"\A(?:{_TEXT}|{_LIST})", "json": rf"\A{_LIST}", "text": rf"\A(?:\z|[^{TYPED}])"}
_BEGINS_LIST = np.isin(np.arange(256), list(b"[ \t\r\n"))
_USABLE_ID = r"\A[!-~]+\z"


def validated_rows(
    records: Records, form: CellForm, start_row: int, number: int, extra: list[str], largest_cell: int
) -> pa.Table:
    """Returns `records` as a table with the columns of `READ`, `extra` and `PLAIN`, numbered from `number` on.

    A row that cannot be used has a `reason`, null cells, and its id if that could be read.
    """
    rows = len(records.columns[0])
    columns, faults = _without_large(records.columns, largest_cell)
    faults |= records.faults
    identity = _ids(columns[0], faults)
    plain = np.zeros((len(CELLS), rows), bool)
    cells = [
        _cells(name, column, records.typed.get(name, ()), form, faults, of_column)
        for name, column, of_column in zip(CELLS, columns[1:4], plain, strict=True)
    ]
    others = [_text(column, {}, "").cast(pa.string()) for column in columns[4:]]
    reasons = pa.nulls(rows, pa.string())
    if faults:
        reasons = pa.array([faults.get(position) for position in range(rows)], pa.string())
        cells = [pc.if_else(reasons.is_null(), cell, pa.scalar(None, cell.type)) for cell in cells]
        plain[:, list(faults)] = False
    numbers = pa.array(range(number, number + rows), pa.int64())
    starts = [pa.repeat(pa.scalar(value, pa.int64()), rows) for value in (records.at, start_row)]
    warnings = pa.nulls(rows, pa.string())
    if records.warnings:
        warnings = pa.array([records.warnings.get(place) for place in range(rows)], pa.string())
    schema = pa.schema([*READ, *(pa.field(name, pa.string()) for name in extra), PLAIN])
    bits = pa.array(np.packbits(plain, axis=0, bitorder="little")[0])
    values = [numbers, identity.cast(pa.string()), *cells, reasons, *starts, warnings, *others, bits]
    return pa.table(values, schema=schema)


def _without_large(columns: Sequence[pa.Array], largest_cell: int) -> tuple[list[pa.Array], dict[int, str]]:
    """Returns the columns with null for each required value that is too large, and the faults of these records."""
    kept, faults = list(columns), dict[int, str]()
    for place, name in enumerate(NEEDED):
        if columns[place].nbytes <= largest_cell:
            continue
        large = pc.greater(pc.binary_length(columns[place]), largest_cell)
        if pc.any(large).as_py():
            kept[place] = pc.if_else(large, pa.scalar(None, columns[place].type), columns[place])
            for position in pc.indices_nonzero(large).to_pylist():
                faults.setdefault(position, too_large(name, largest_cell))
    return kept, faults


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


def _cells(
    name: str, column: pa.Array, typed: Sequence[int], form: CellForm, faults: dict[int, str], plain: np.ndarray
) -> pa.Array:
    """Returns a column as shards keep it; a cell that cannot be used becomes the fault of its row.

    With `auto`, sets `plain` (bool [rows]) at the cells that are plain text.
    """
    cells = _text(column, faults, name)
    if len(typed) == len(cells):  # lists of texts that the reader wrote
        usable = pa.repeat(True, len(cells))
    else:
        usable = pc.fill_null(pc.match_substring_regex(cells, _USABLE[form]), False)
    if form == "auto":
        plain[:] = _plain(cells, usable)
    changed: dict[int, str | None] = {}
    for position in _false(usable):
        if position not in faults:
            cell = cells[position].as_py()
            try:
                kept = _kept(name, cell, form)
            except BadCellError as error:
                faults[position] = f"{name} {error}"
                continue
            if kept.text != cell:
                changed[position] = kept.text
            plain[position] = kept.plain and form == "auto"
    if form == "text":
        changed |= {position: TYPED + cells[position].as_py() for position in typed}
    return _replaced(cells, changed)


def _plain(cells: pa.Array, usable: pa.BooleanArray) -> np.ndarray:
    """Returns which of the cells that the pattern of `auto` accepts are plain text, by their first bytes, bool [rows].

    On columns of a small file NumPy takes a fifth of the time of Arrow's functions.
    """
    _, offsets, data = cells.buffers()
    places = np.frombuffer(offsets, np.int64)[cells.offset : cells.offset + len(cells) + 1]
    filled = np.flatnonzero(np.diff(places))
    first = np.zeros(len(cells), np.uint8)
    if len(filled):
        first[filled] = np.frombuffer(data, np.uint8)[places[filled]]
    return usable.to_numpy(zero_copy_only=False) & ~_BEGINS_LIST[first]


def _kept(name: str, cell: str | None, form: CellForm) -> KeptCell:
    if cell is None:
        raise BadCellError("is missing")
    return kept_cell(name, cell, form)


def _text(column: pa.Array, faults: dict[int, str], name: str) -> pa.Array:
    """Returns a column as large_string; a value that is not UTF-8 becomes null and the fault of its row."""
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
    """Returns a column with the values at some positions replaced."""
    if not changed:
        return column
    return pa.array([changed.get(i, value) for i, value in enumerate(column.to_pylist())], column.type)


def _false(mask: pa.BooleanArray) -> list[int]:
    return pc.indices_nonzero(pc.invert(mask)).to_pylist()
