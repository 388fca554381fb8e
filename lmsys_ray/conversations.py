"""The record that flows through a run: one prompt, two responses, each a list of turns.

Cells come as they stood in the input: a JSON list of turns (`["first turn","second turn"]`, `null` for a turn that is
missing), or plain text, which is one turn. They are kept raw in the shards, since members read them in different ways.
"""

import json
import re
from typing import Literal

import pyarrow as pa

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

# What a JSON list of turns begins with; other text in brackets, such as "[Verse 1]", is plain text.
_LIST_OF_TURNS = re.compile(r'\s*\[\s*(?:"|null\b|\]|\Z)')
# Not strict: control characters inside texts are kept. `json.loads` would make a decoder for each cell.
_DECODE = json.JSONDecoder(strict=False).decode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class BadCellError(ValueError):
    """A cell that cannot be decoded; the text says why, without quoting the cell."""


def decode_cell(cell: str, form: CellForm = "auto") -> list[str]:
    """Returns the turns of a raw cell.

    `auto` reads what begins like a JSON list of turns as JSON and all else as plain text of one turn; `json` and
    `text` decide for every cell. A null turn becomes the empty text, a number or a boolean its JSON text, a lone
    surrogate (`\\ud83d` without its twin, seen in real data) U+FFFD.

    Raises `BadCellError` for JSON that does not parse or holds anything else than turns.
    """
    if form == "text" or (form == "auto" and not _LIST_OF_TURNS.match(cell)):
        return [_without_lone_surrogates(cell)]
    try:
        turns = _DECODE(cell)
    except json.JSONDecodeError as error:
        raise BadCellError(f"is not valid JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise BadCellError("is JSON nested too deeply") from None
    except ValueError:  # a number of more than 4,300 digits
        raise BadCellError("holds a number too long to be a turn") from None
    if not isinstance(turns, list):
        raise BadCellError(f"is JSON but no list of turns (found {_json_type(turns)})")
    return [_turn_text(turn, position) for position, turn in enumerate(turns, 1)]


def _turn_text(turn: object, position: int) -> str:
    if isinstance(turn, str):
        return _without_lone_surrogates(turn)
    if turn is None:
        return ""
    if isinstance(turn, bool | int | float):
        return json.dumps(turn)
    raise BadCellError(f"has {_json_type(turn)} as turn {position} where text is expected")


def _without_lone_surrogates(text: str) -> str:
    return text if text.isascii() else _LONE_SURROGATE.sub("�", text)


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
