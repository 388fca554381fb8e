"""The cells of a conversation: one prompt and two responses, each a list of turns.

An input cell is a JSON list of turns (null for a missing one) or of chat messages, a list as Python prints it, or plain
text, which is one turn. Shards keep cells raw, since members read them differently; messages and printed lists become
JSON lists of texts. The form of a cell depends on itself only. Measurements: docs/lab/cells.md.
"""

import json
import re
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.printed_lists import printed_list
from lmsys_ray.data.turns import (
    BadCellError,
    Turns,
    begins_like_messages,
    begins_like_objects,
    check_roles,
    holds_messages,
    json_text,
    turns_of,
    without_lone_surrogates,
)

__all__ = ["CELLS", "SHARD", "TYPED", "BadCellError", "CellForm", "KeptCell", "decode_cell", "kept_cell", "undecoded"]

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
"""The prefix of a cell of the form `text` that is still a JSON list of turns, since its file types it as a list.

It is a noncharacter, which Unicode reserves for internal use; a plain text that begins with it is kept as such a list.
"""

# The beginning of a list of turns; other text in brackets, such as "[Verse 1]", is plain text.
_LIST_OF_TURNS = re.compile(r"""\s*\[\s*(?:["'\]]|null\b|None\b|(?:n|nu|nul|N|No|Non)?\Z)""")
_PRINTED = re.compile(r"\s*\[\s*['N]")
# What may follow a list that was closed too early, or cut out of a larger one; it is not text.
_MARKS = re.compile(r"""[\s\]})"',;]*\Z""")
# Not strict: control characters inside texts are kept. `json.loads` would create a decoder for each cell.
_DECODE = json.JSONDecoder(strict=False).decode
_IF_TEXT = "; plain text needs --set cells=text"


def decode_cell(cell: str, form: CellForm = "auto") -> list[str]:
    """Returns the turns of a raw cell.

    `auto` recognises lists of turns and of chat messages with roles, and reads everything else as plain text of one
    turn; `json` and `text` apply to every cell. A null turn becomes the empty text, a number or a boolean its JSON
    text, and a lone surrogate U+FFFD. Raises `BadCellError` for lists with anything but turns, and for what may be a
    damaged list: one that breaks off, or does not continue as a list after a turn. Text after a whole list makes all of
    it plain text.
    """
    return [without_lone_surrogates(text or "") for text in _turns(cell, form).texts]


class KeptCell(NamedTuple):
    """A cell of the input as shards keep it, with the same turns."""

    text: str
    plain: bool
    """Whether the cell was taken as plain text."""


def kept_cell(column: str, cell: str, form: CellForm) -> KeptCell:
    """Returns a cell of the input as shards keep it.

    Raises `BadCellError` for one that `decode_cell` refuses, and for messages that belong in another column.
    """
    if form == "text":
        return KeptCell(TYPED + json_text(Turns([cell])) if cell.startswith(TYPED) else cell, plain=True)
    turns = _turns(cell, form)
    check_roles(column, turns)
    return KeptCell(json_text(turns) if turns.rewritten else cell, turns.plain)


def undecoded(conversations: pa.Table) -> pa.Table:
    """Returns conversations with their cells as a CSV would hold them, for members that read them undecoded."""
    for place, name in enumerate(conversations.column_names):
        if name in CELLS and pc.any(pc.starts_with(conversations[name], TYPED)).as_py():
            cells = pc.replace_substring_regex(conversations[name], rf"\A{TYPED}", "")
            conversations = conversations.set_column(place, name, cells)
    return conversations


class _NoJsonError(BadCellError):
    """A cell that is not JSON, with the reason and the place."""

    def __init__(self, error: json.JSONDecodeError) -> None:
        super().__init__(f"is not valid JSON ({error.msg} at character {error.pos})")
        self.place = error.pos
        self.text_follows = error.msg == "Extra data"


def _turns(cell: str, form: CellForm) -> Turns:
    if form == "text":
        return turns_of(_parsed(cell[len(TYPED) :])) if cell.startswith(TYPED) else Turns([cell], plain=True)
    if form == "json":
        return _list_turns(cell)
    return _list_or_text(cell) if _LIST_OF_TURNS.match(cell) else _messages_or_text(cell)


def _list_turns(cell: str) -> Turns:
    try:
        value = _parsed(cell)
    except _NoJsonError:
        printed = printed_list(cell)
        if printed.turns is None or printed.end < len(cell):
            raise
        return Turns(printed.turns, rewritten=True)
    return turns_of(value)


def _list_or_text(cell: str) -> Turns:
    try:
        return _list_turns(cell)
    except BadCellError as error:
        if isinstance(error, _NoJsonError) and not _may_be_damaged(cell, error):
            return Turns([cell], plain=True)
        raise BadCellError(f"{error}{_IF_TEXT}") from None


def _may_be_damaged(cell: str, error: _NoJsonError) -> bool:
    """Returns whether text that begins like a list may be a damaged one: truncated, or with a stray or missing mark."""
    if _PRINTED.match(cell):
        printed = printed_list(cell)
        return printed.begun if printed.turns is None else _MARKS.match(cell, printed.end) is not None
    if error.text_follows:
        return _MARKS.match(cell, error.place) is not None
    has_text = cell.find('"', 0, error.place + 1) >= 0
    rest = cell[error.place : error.place + 5]  # white space that JSON does not know, the end, or a truncated null
    return has_text or rest[:1].isspace() or rest.rstrip() in ("", "n", "nu", "nul")


def _messages_or_text(cell: str) -> Turns:
    if not begins_like_objects(cell):
        return Turns([cell], plain=True)
    try:
        value = _parsed(cell)
    except BadCellError as error:
        if begins_like_messages(cell):
            raise BadCellError(f"{error}{_IF_TEXT}") from None
        return Turns([cell], plain=True)
    return turns_of(value) if holds_messages(value) else Turns([cell], plain=True)


def _parsed(cell: str) -> Any:
    try:
        return _DECODE(cell)
    except json.JSONDecodeError as error:
        raise _NoJsonError(error) from None
    except RecursionError:
        raise BadCellError("is JSON nested too deeply") from None
    except ValueError:  # a number of more than 4,300 digits
        raise BadCellError("holds a number too long to be a turn") from None
