"""A schema: the columns by which it is recognised, and how a record of it becomes rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lmsys_ray.data.schemas.row import Record, Row

PairsOfRanked = Literal["all", "adjacent", "best_worst"]

COMMON = ("language", "source", "tags")
"""Columns that any file may have, and that travel with its rows."""


def any_values(records: Sequence[Record]) -> bool:
    """Tells that a schema is known by its columns alone."""
    return True


@dataclass(frozen=True)
class Schema:
    """The shape of the records of a data set."""

    name: str
    title: str
    """What people call it."""
    required: Sequence[Sequence[str]]
    """Columns that a file must have, each with the names that it may have instead."""
    rows: Callable[[Record, PairsOfRanked], list[Row]]
    """Returns the rows of a record; raises `BadCellError` for one that cannot be read."""
    telling: Sequence[str] = ()
    """Further columns that it reads or is known by."""
    fits: Callable[[Sequence[Record]], bool] = any_values
    """Whether the values of the first records are such as this schema has."""
    identity: Callable[[Record], str | None] | None = None
    """Returns the id of a record where no single column is one."""
    ids: Sequence[str] = ("id",)
    """The names of the column with the id, the first that a file has."""
    carries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each column of `lmsys_ray.data.carried.CARRIED` beside the `COMMON`: the columns that it is read from, of
    which a file needs one; no names: it is always there."""

    one_row: bool = True
    """Whether each record is one row."""
    advice: str = ""
    """A sentence about a choice that the user may want to make otherwise."""

    def reads(self) -> list[str]:
        """Returns every column that it may read."""
        named = [*self.ids, *(name for names in self.required for name in names), *self.telling]
        named += [name for names in self.carries.values() for name in names]
        return list(dict.fromkeys([*named, *COMMON]))

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Returns which required columns are not among `columns`, those with several names as `one or other`."""
        return [" or ".join(names) for names in self.required if not set(names) & set(columns)]

    def matched(self, columns: Sequence[str]) -> list[str]:
        """Returns which of `columns` it is known by."""
        known = [name for names in self.required for name in names] + list(self.telling)
        return [name for name in columns if name in known]

    def carried(self, columns: Sequence[str]) -> list[str]:
        """Returns which carried columns the rows of a file with these columns have."""
        there = [name for name, names in self.carries.items() if not names or set(names) & set(columns)]
        return there + [name for name in COMMON if name in columns]


MODELS = {"model_a": ("model_a",), "model_b": ("model_b",)}
