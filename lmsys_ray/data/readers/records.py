"""What every reader yields: raw values in columns, not yet validated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

LARGEST_CELL = 64 << 20
"""The default limit in bytes of the text of a cell, or of an id."""


class ReadPosition(NamedTuple):
    """A place in a file where reading can begin."""

    at: int = 0
    """CSV and JSON Lines: bytes before it (of the unpacked text); Parquet: row groups before it. 0: the beginning."""
    row: int = 1
    """The number of the row at that place, from 1."""


BEGINNING = ReadPosition()


@dataclass(frozen=True)
class Records:
    """Successive records of a file."""

    at: int
    """Where reading can begin to reach them, as in `ReadPosition`."""
    columns: list[pa.Array]
    """The values of each requested column, the id first: text, or bytes that may not be UTF-8; null where missing."""
    faults: dict[int, str] = field(default_factory=dict)
    """By position: why a record cannot be used; its id is in `columns` if it is known."""
    typed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By column: the positions that the file types as lists, now the JSON text of their turns."""
    warnings: Mapping[int, str] = field(default_factory=dict)
    """By position: warnings about records that can be used."""
    carried: Mapping[str, pa.Array] = field(default_factory=dict)
    """What travels with the records, by column of `lmsys_ray.data.carried.CARRIED`."""


def text_column(values: Sequence[str | None]) -> pa.Array:
    """Returns a column of text; of bytes where a value has lone surrogates, which the check of UTF-8 then finds."""
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(encoded, pa.large_binary())


def too_large(name: str, largest_cell: int) -> str:
    """Returns the reason for a record whose value in the column `name` has more bytes than `largest_cell`."""
    return f"{name} has more than largest_cell = {largest_cell} bytes"


def plain_id(text: str) -> str | None:
    """Returns `text` if it may be the id of a damaged record: a short token with a digit, not running text."""
    return text if _PLAIN_ID.fullmatch(text) else None


_PLAIN_ID = re.compile(r"(?=.*[0-9])[\w.:-]{1,64}")
