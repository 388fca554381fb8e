"""The record that flows through a run: one prompt, two responses, each a list of turns.

Cells come as they stood in the input: a JSON list of turns (`["first turn","second turn"]`, `null` for a turn that is
missing) or of chat messages, or plain text, which is one turn. They are kept raw in the shards, since members read them
in different ways; messages alone are kept as the list of their texts, the form that all members know.
"""

import json
import re
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.turns import (
    BadCellError,
    Turns,
    begins_like_messages,
    begins_like_objects,
    check_roles,
    holds_messages,
    json_text,
    turns_of,
)

__all__ = ["CELLS", "SHARD", "TYPED", "BadCellError", "CellForm", "decode_cell", "kept_cell", "undecoded"]

CELLS = ("prompt", "response_a", "response_b")
"""The three columns of text that every input must have, beside `id`."""

SHARD = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        *(pa.field(name, pa.large_string()) for name in CELLS),
        pa.field("rejected", pa.bool_(), nullable=False),
    ]
)
"""A shard of ingested conversations. `row` counts from 0 over the whole run; the cells of a rejected row are null."""

CellForm = Literal["auto", "json", "text"]

TYPED = "\ufdd0"
"""Begins a cell of the form `text` that is a JSON list of turns nevertheless, since its file types it as a list.

A noncharacter, which Unicode sets apart for such internal use; a plain text that begins with it is kept as such a list.
"""

# What a JSON list of turns begins with; other text in brackets, such as "[Verse 1]", is plain text.
_LIST_OF_TURNS = re.compile(r'\s*\[\s*(?:"|null\b|\]|\Z)')
# Not strict: control characters inside texts are kept. `json.loads` would make a decoder for each cell.
_DECODE = json.JSONDecoder(strict=False).decode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_cell(cell: str, form: CellForm = "auto") -> list[str]:
    """Returns the turns of a raw cell.

    `auto` reads what begins like a JSON list of turns, or of chat messages that name their roles, as JSON and all else
    as plain text of one turn; `json` and `text` decide for every cell. A null turn becomes the empty text, a number or
    a boolean its JSON text, a lone surrogate (`\\ud83d` without its twin, seen in real data) U+FFFD.

    Raises `BadCellError` for JSON that does not parse or holds anything else than turns.
    """
    return [_without_lone_surrogates(text or "") for text in _turns(cell, form).texts]


def kept_cell(column: str, cell: str, form: CellForm) -> str:
    """Returns a cell of the input as shards keep it, from which `decode_cell` makes the same turns.

    Raises `BadCellError` for one that `decode_cell` refuses, and for messages that belong to another column.
    """
    if form == "text":
        return TYPED + json_text(Turns([cell])) if cell.startswith(TYPED) else cell
    turns = _turns(cell, form)
    check_roles(column, turns)
    return cell if turns.roles is None else json_text(turns)


def undecoded(conversations: pa.Table) -> pa.Table:
    """Returns conversations with their cells as a CSV would hold them, for those who read cells undecoded."""
    for place, name in enumerate(conversations.column_names):
        if name in CELLS and pc.any(pc.starts_with(conversations[name], TYPED)).as_py():
            cells = pc.replace_substring_regex(conversations[name], rf"\A{TYPED}", "")
            conversations = conversations.set_column(place, name, cells)
    return conversations


def _turns(cell: str, form: CellForm) -> Turns:
    if form == "text":
        return turns_of(_parsed(cell[len(TYPED) :])) if cell.startswith(TYPED) else Turns([cell])
    if form == "auto" and not _LIST_OF_TURNS.match(cell):
        return _messages_or_text(cell)
    return turns_of(_parsed(cell))


def _messages_or_text(cell: str) -> Turns:
    if not begins_like_objects(cell):
        return Turns([cell])
    try:
        value = _parsed(cell)
    except BadCellError:
        if begins_like_messages(cell):
            raise
        return Turns([cell])
    return turns_of(value) if holds_messages(value) else Turns([cell])


def _parsed(cell: str) -> Any:
    try:
        return _DECODE(cell)
    except json.JSONDecodeError as error:
        raise BadCellError(f"is not valid JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise BadCellError("is JSON nested too deeply") from None
    except ValueError:  # a number of more than 4,300 digits
        raise BadCellError("holds a number too long to be a turn") from None


def _without_lone_surrogates(text: str) -> str:
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)
