"""What travels with the rows of files whose columns are those of shards: labels and names from columns of text."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.carried import CARRIED
from lmsys_ray.data.readers.convert import tags_of
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.data.schemas.values import FALSE, ONE_HOT, TRUE, WINNERS


def sources(reading: Reading, found: Sequence[str]) -> list[str]:
    """Returns which columns of a file, out of `found`, hold what travels with its rows; not one that is there twice."""
    carries = reading.of.carries
    names = [name for column in reading.carried for name in (*carries.get(column, ()), column)]
    return [name for name in dict.fromkeys(names) if list(found).count(name) == 1]


def with_carried(table: pa.Table, reading: Reading, names: Sequence[str]) -> pa.Table:
    """Returns a table of rows with the carried columns in place of the columns `names` of text, their `sources`."""
    for column in reading.carried:
        known = [name for name in (*reading.of.carries.get(column, ()), column) if name in names]
        if column == "label":
            label, doubted = _labels(table, known)
            warning = pc.if_else(doubted, _warnings(table, known, doubted), pa.scalar(None, pa.string()))
            place = table.schema.get_field_index("warning")
            table = table.set_column(place, "warning", pc.coalesce(table["warning"], warning))
            values: pa.ChunkedArray | pa.Array = label
        elif not known:
            values = pa.nulls(table.num_rows, CARRIED.field(column).type)
        elif column == "tags":
            values = pa.array([tags_of(value) for value in table[known[0]].to_pylist()], CARRIED.field(column).type)
        else:
            values = _without_empty(table[known[0]])
        table = table.append_column(f"carried {column}", values)
    table = table.drop_columns(list(names))
    return table.rename_columns([name.removeprefix("carried ") for name in table.column_names])


def _without_empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _labels(table: pa.Table, names: Sequence[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Returns the classes of rows, int8, and which rows have values that name none."""
    if set(ONE_HOT) <= set(names):
        values = [pc.ascii_lower(pc.utf8_trim_whitespace(_without_empty(table[name]))) for name in ONE_HOT]
        true, false = ([pc.is_in(value, marks) for value in values] for marks in (pa.array(TRUE), pa.array(FALSE)))
        chosen = [
            pc.and_(true[place], pc.and_(*(false[other] for other in range(3) if other != place))) for place in range(3)
        ]
        label = pc.case_when(pc.make_struct(*chosen), *(pa.scalar(place, pa.int8()) for place in range(3)))
        given = pc.or_(pc.or_(*(value.is_valid() for value in values[:2])), values[2].is_valid())
    elif "winner" in names:
        text = _without_empty(table["winner"])
        found = pc.index_in(pc.utf8_lower(pc.utf8_trim_whitespace(text)), pa.array(list(WINNERS)))
        label = pc.take(pa.array(list(WINNERS.values()), pa.int8()), found)
        given = text.is_valid()
    else:  # the file has some of the three columns, which say nothing alone
        nothing = pa.nulls(table.num_rows, pa.int8())
        return nothing, pa.repeat(pa.scalar(False), table.num_rows)
    return label, pc.and_(given, label.is_null())


def _warnings(table: pa.Table, names: Sequence[str], doubted: pa.ChunkedArray) -> pa.Array:
    shown = ", ".join(names)
    rows = zip(doubted.to_pylist(), *(table[name].to_pylist() for name in names), strict=True)
    return pa.array(
        [
            f"{shown}: {', '.join((value or 'nothing')[:20] for value in values)} names no winner, so the row has no "
            "label"
            if doubt
            else None
            for doubt, *values in rows
        ],
        pa.string(),
    )
