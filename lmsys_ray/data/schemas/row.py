"""What a record becomes: rows of a prompt, two responses, and what travels with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""A record of a file: its values by column, as the file types them; texts where the file is CSV."""

Cell: TypeAlias = str | Sequence[str | None] | None
"""A prompt or a response: the text of a cell that is still to be read, or its turns; None where it is missing."""

A, B, TIE = 0, 1, 2
"""The classes of labels, as places in `lmsys_ray.CLASSES`."""


class Row(NamedTuple):
    """A prompt with two responses to it."""

    prompt: Cell
    first: Cell
    """Response A; where `dealt`, the response that people chose."""
    second: Cell
    """Response B; where `dealt`, the one that they rejected."""
    label: int | None = None
    """The class that people chose, with `first` as A."""
    dealt: bool = False
    """Whether the sides are still to be dealt: the file names the better response first."""
    models: tuple[str | None, str | None] = (None, None)
    """Who wrote the first and the second response."""
    part: str = ""
    """Tells the rows of one record apart, after its id."""
    warning: str | None = None
    """Why a label could not be read."""


class Refused(NamedTuple):
    """A record that cannot be read."""

    reason: str
    id: str | None = None


class RawRecords(NamedTuple):
    """Successive records of a file, as it types their values."""

    at: int
    """Where reading can begin to reach them: bytes, or row groups of Parquet, before them."""
    records: Sequence[Record | Refused]
    warnings: Mapping[int, str] = {}
    """By position: warnings about records that can be used."""
