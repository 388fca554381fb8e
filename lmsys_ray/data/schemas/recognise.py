"""Recognises the schema of a file from its columns and its first records, never from its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from lmsys_ray.data.schemas.reading import IdSource, Reading, renamed_columns
from lmsys_ray.data.schemas.registry import SCHEMAS
from lmsys_ray.data.schemas.row import Record
from lmsys_ray.data.schemas.schema import PairsOfRanked, Schema, any_values
from lmsys_ray.errors import UsageError

_NEAREST = 3
_SHOWN = 20


class Head(NamedTuple):
    """The beginning of a file."""

    path: str
    columns: Sequence[str]
    records: Sequence[Record]


class Wishes(NamedTuple):
    """What the settings say of reading."""

    schema: str = "auto"
    columns: Mapping[str, str] = {}
    id: IdSource | Literal["auto"] = "auto"
    pairs: PairsOfRanked = "all"


ANYTHING = Wishes()


class Recognised(NamedTuple):
    """How to read a file, and what to tell of it."""

    reading: Reading
    sentences: list[str]


def recognise(head: Head, wishes: Wishes = ANYTHING) -> Recognised:
    """Returns how to read a file that begins as `head`.

    Of the schemas that fit, the one is taken by which most columns are known. Raises `UsageError` where none fits, or
    the one that is asked for does not.
    """
    if absent := [name for name in wishes.columns.values() if name not in head.columns]:
        raise UsageError(
            f"settings: columns names {', '.join(absent)}, but {head.path} has no such column; it has {_listed(head)}"
        )
    found = renamed_columns(head.columns, wishes.columns)
    mapping = Reading(columns=tuple(wishes.columns.items()))
    records = [mapping.renamed(record) for record in head.records]
    others: list[Schema] = []
    if wishes.schema != "auto":
        schema = SCHEMAS[wishes.schema]
        if missing := schema.missing(found):
            raise UsageError(
                f"input: {head.path} has no column {', '.join(missing)}, which schema = {schema.name} needs; it has "
                f"{_listed(head)}"
            )
    else:
        schema, *others = _fitting(head, found, records)
    has_id = bool(schema.identity) or bool(set(schema.ids) & set(found))
    if wishes.id == "column" and not has_id:
        raise UsageError(
            f"input: {head.path} has no column {' or '.join(schema.ids)}; name one with --set columns.id=NAME, or set "
            "id to row or hash"
        )
    identity: IdSource = wishes.id if wishes.id != "auto" else "column" if has_id else "row"
    reading = Reading(schema.name, tuple(wishes.columns.items()), identity, wishes.pairs, tuple(schema.carried(found)))
    return Recognised(reading, _sentences(reading, schema, others, found, wishes))


def _fitting(head: Head, found: Sequence[str], records: Sequence[Record]) -> list[Schema]:
    """Returns the schemas that fit, the one by which most columns are known first."""
    fitting = [schema for schema in SCHEMAS.values() if not schema.missing(found) and schema.fits(records)]
    if fitting:
        return sorted(fitting, key=lambda schema: (-len(schema.matched(found)), schema.fits is any_values))
    by_lack = sorted(SCHEMAS.values(), key=lambda schema: (len(schema.missing(found)), -len(schema.matched(found))))
    lacks = [
        f"{schema.name} lacks {', '.join(schema.missing(found))}"
        if schema.missing(found)
        else f"{schema.name} has no prompt, or other values"
        for schema in by_lack[:_NEAREST]
    ]
    hint = "; is its delimiter a comma?" if len(head.columns) == 1 else ""
    raise UsageError(
        f"input: {head.path} is of no known schema; it has {_listed(head)}{hint} (nearest: {'; '.join(lacks)}); name "
        "its columns, for example with --set columns.prompt=NAME, or its schema with --set schema=NAME"
    )


def _sentences(
    reading: Reading, schema: Schema, others: Sequence[Schema], found: Sequence[str], wishes: Wishes
) -> list[str]:
    columns = [next(name for name in names if name in found) for names in schema.required]
    columns += [name for name in schema.carries.get("label", ()) if name in found and name not in columns]
    shown = ", ".join(f"{name} from {wishes.columns[name]}" if name in wishes.columns else name for name in columns)
    also = ""
    if others:
        more = [name for name in schema.matched(found) if name not in others[0].matched(found)]
        why = f"for its {', '.join(more) or 'values'}"
        also = f"; {others[0].name} fits too, {schema.name} was taken {why}"
    sentences = [f"input: {schema.title} ({shown}){also}"]
    if schema.advice and not wishes.columns:
        sentences.append(f"input: {schema.advice}")
    if reading.id == "row" and wishes.id == "auto":
        sentences.append("input: no column holds ids, so FILE:ROW is the id of a row (--set id=hash: its content)")
    return sentences


def _listed(head: Head) -> str:
    shown = ", ".join(head.columns[:_SHOWN])
    return shown + (f" and {len(head.columns) - _SHOWN} more" if len(head.columns) > _SHOWN else "")
