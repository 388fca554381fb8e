"""How the files of a run are read: the schema, the columns that stand for its own, ids, and what travels along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lmsys_ray.data.schemas.registry import SCHEMAS
from lmsys_ray.data.schemas.row import Record
from lmsys_ray.data.schemas.schema import PairsOfRanked, Schema

IdSource = Literal["column", "row", "hash"]

_DIRECT = ("contest", "wsdm")
"""Schemas whose cells are those of shards, so that readers need not look at each record."""


@dataclass(frozen=True)
class Reading:
    """How records become rows; tasks that read files receive it."""

    schema: str = "contest"
    columns: tuple[tuple[str, str], ...] = ()
    """(column of the schema, column of the files that stands for it)."""
    id: IdSource = "column"
    pairs: PairsOfRanked = "all"
    carried: tuple[str, ...] = ()
    """Which columns of `lmsys_ray.data.carried.CARRIED` the rows have."""

    @property
    def of(self) -> Schema:
        """The schema."""
        return SCHEMAS[self.schema]

    @property
    def is_direct(self) -> bool:
        """Whether the columns of the files are those of shards, as in the contest's CSV."""
        return self.schema in _DIRECT and not self.columns and self.id == "column"

    def asked(self, found: Sequence[str]) -> list[str]:
        """Returns which of the columns `found` in a file are read."""
        theirs = dict(self.columns)
        wanted = [theirs.get(name, name) for name in self.of.reads()]
        wanted += [name for name in theirs.values() if name not in wanted]
        needed = {name for names in self.of.required for name in names}
        return [
            name for name in dict.fromkeys(wanted) if list(found).count(name) == 1 or (name in found and name in needed)
        ]

    def missing(self, found: Sequence[str]) -> list[str]:
        """Returns the columns that a file with the columns `found` lacks."""
        return [name for _, name in self.columns if name not in found] or self.of.missing(self.named(found))

    def named(self, found: Sequence[str]) -> list[str]:
        """Returns columns of a file under the schema's names."""
        return renamed_columns(found, dict(self.columns))

    def renamed(self, record: Record) -> Record:
        """Returns a record under the schema's names."""
        if not self.columns:
            return record
        theirs = {name for _, name in self.columns}
        kept = {name: value for name, value in record.items() if name not in theirs}
        return kept | {name: record.get(theirs_) for name, theirs_ in self.columns}

    def identity(self, record: Record) -> str | None:
        """Returns the id that a record brings, None if it has none."""
        schema = self.of
        if schema.identity is not None and "id" not in record:
            return schema.identity(record)
        name = next((name for name in schema.ids if name in record), None)
        value = None if name is None else record[name]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) else None

    def as_dict(self) -> dict[str, Any]:
        """Returns it as the manifest holds it; empty for the contest's columns with nothing that travels along."""
        values = {name: getattr(self, name) for name in ("schema", "id", "pairs")}
        plain = Reading()
        changed: dict[str, Any] = {name: value for name, value in values.items() if value != getattr(plain, name)}
        changed |= {"columns": dict(self.columns)} if self.columns else {}
        return changed | ({"carried": list(self.carried)} if self.carried else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """Returns what `as_dict` was made from."""
        columns = tuple(dict(values.get("columns", {})).items())
        return cls(**{**values, "columns": columns, "carried": tuple(values.get("carried", ()))})


PLAIN = Reading()
"""The contest's columns, nothing more."""


def renamed_columns(found: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Returns column names with those that `columns` maps to replaced by its keys."""
    theirs = set(columns.values())
    return [*columns, *(name for name in found if name not in theirs and name not in columns)]


def row_names(files: Sequence[str]) -> list[str]:
    """Returns the names with which ids of rows begin: those of the files, with folders as far as they tell them apart.

    They stay the same where all files move together.
    """
    parts = [file.rstrip("/").split("/") for file in files]
    if len({names[-1] for names in parts}) == len(files):
        return [names[-1] for names in parts]
    common = 0
    while len({tuple(names[: common + 1]) for names in parts}) == 1:
        common += 1
    return ["/".join(names[common:]) for names in parts]


def row_names_as_begun(files: Sequence[str], counts: Iterable[int]) -> list[str]:
    """Returns names as `row_names`, where the first of `files` have those that they had when there were only so many.

    `counts`, ascending, says how many there were at the beginning of a run and after each extension.
    """
    names: list[str] = []
    for count in [*counts, len(files)]:
        names += row_names(files[:count])[len(names) :]
    return names
