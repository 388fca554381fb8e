"""The tables of `docs/settings.md`, made from the types, defaults and descriptions of the settings themselves.

`python -m lmsys_ray.scoring.settings_page` replaces them between their marks and keeps the text around them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lmsys_ray.config.base import PathName, nested_model
from lmsys_ray.members.protocol import MemberSettings
from lmsys_ray.members.registry import kind_named, names, package_of
from lmsys_ray.scoring.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

_PATH = get_args(PathName)[1]
_NO_BOUND = 10**12
"""An upper bound that only keeps numbers in the range of a machine."""


def tables() -> dict[str, str]:
    """Returns the tables by the names of their marks: `run`, then the kinds of members of this package."""
    kinds = [name for name in names() if package_of(name) is None]
    return {"run": table(Settings), **{kind: _of_kind(kind_named(kind).settings) for kind in kinds}}


def page(text: str, tables: Mapping[str, str]) -> str:
    """Returns `text` with each table between its marks; a table without marks gets a section at the end."""
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin not in text:
            text += f"\n## A member of kind `{name}`\n\n{begin}\n{end}\n"
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end, 1)[1]}"
    return text


def table(settings: type[BaseModel]) -> str:
    """Returns a Markdown table of settings: name, what is accepted, default, description."""
    rows = [("setting", "accepted", "default", "meaning"), ("---",) * 4, *_rows(settings)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_kind(settings: type[MemberSettings]) -> str:
    mutable = ", ".join(f"`{name}`" for name in settings.model_fields if name in settings.MUTABLE)
    return f"{table(settings)}\n\nMay change between two starts of a run: {mutable}."


def _rows(settings: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    for name, field in settings.model_fields.items():
        if nested := nested_model(field.annotation):
            yield from _rows(nested, f"{prefix}{name}.")
        elif name != "kind":  # which the heading names
            yield f"`{prefix}{name}`", _accepted(field.annotation, field.metadata), _default(field), _described(field)


def _described(field: FieldInfo) -> str:
    return re.sub(r"[|<]", r"\\\g<0>", field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    if value is None:
        return "none"
    one_line = isinstance(value, str) and value.isprintable()
    return f"`{value if one_line else json.dumps(value)}`"


def _accepted(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Returns in words what a type and its constraints accept."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _accepted(parts[0], [*parts[1:], *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_accepted(part, metadata) for part in parts if part is not NoneType)
    if origin is Literal:
        return ", ".join(f"`{part if isinstance(part, str) else json.dumps(part)}`" for part in parts)
    if origin is list:
        return f"list: {_accepted(parts[0])}"
    if origin is tuple:
        return f"{len(parts)} × {_accepted(parts[0])}"
    if origin is dict:
        return "mapping"
    if annotation is bool:
        return "`true`, `false`"
    if annotation in (int, float):
        return " ".join(["whole number" if annotation is int else "number", *_bounds(metadata)])
    if annotation is str:
        return "path or name" if _PATH in metadata else "text"
    raise TypeError(f"{annotation}: no words for this type; add some to {Path(__file__).name}")


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    """Yields the words for the bounds of a number."""
    for bound in metadata:
        if isinstance(bound, FieldInfo):
            yield from _bounds(bound.metadata)
        elif isinstance(bound, annotated_types.Gt):
            yield f"above {bound.gt:,}"
        elif isinstance(bound, annotated_types.Ge):
            yield f"from {bound.ge:,}"
        elif isinstance(bound, annotated_types.Lt):
            yield f"to below {bound.lt:,}"
        elif isinstance(bound, annotated_types.Le) and bound.le != _NO_BOUND:
            yield f"up to {bound.le:,}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
