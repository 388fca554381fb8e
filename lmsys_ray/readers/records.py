"""What every reader yields: raw values in columns, before anything is checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa


class Start(NamedTuple):
    """A place in a file where its reading can begin."""

    at: int = 0
    """CSV and JSON Lines: bytes before it (of the unpacked text); Parquet: row groups before it. 0: the beginning."""
    row: int = 1
    """The number of the row that stands there, from 1."""


BEGINNING = Start()


@dataclass(frozen=True)
class Records:
    """Successive records of a file."""

    at: int
    """Where reading can begin to come to them, as in `Start`."""
    columns: list[pa.Array]
    """The values of each column asked for, the id's first: text or bytes that may be no UTF-8, null where missing."""
    faults: dict[int, str] = field(default_factory=dict)
    """Why the record at a position here cannot be used; its id stands in `columns` where it is known."""
    typed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By column, where the file itself types a value as a list: it came as the JSON text of its turns."""


def text_columns(rows: Sequence[Sequence[str | None]], width: int, surrogates: str) -> list[pa.Array]:
    """Returns `width` columns of UTF-8, `surrogates` being how lone ones are encoded.

    `surrogateescape` where they stand for bytes that were no UTF-8, `surrogatepass` where the input itself held them;
    the check of UTF-8 finds either.
    """
    columns = zip(*rows, strict=True) if rows else [()] * width
    return [
        pa.array([None if value is None else value.encode("utf-8", surrogates) for value in column], _BYTES)
        for column in columns
    ]


def plain_id(text: str) -> str | None:
    """Returns what may be taken for the id of a damaged record: a short token with a digit, no running text."""
    return text if _PLAIN_ID.fullmatch(text) else None


_BYTES = pa.large_binary()
_PLAIN_ID = re.compile(r"(?=.*[0-9])[\w.:-]{1,64}")
