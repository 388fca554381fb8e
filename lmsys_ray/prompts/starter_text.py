"""Cells as the public KerasNLP starter of the contest reads them, quirks included.

It takes the first turn of each cell, parses cells as Python literals, and blanks a text that is not valid UTF-8.
"""

from __future__ import annotations

import ast
import warnings
from typing import NamedTuple

from lmsys_ray.data.conversations import TYPED, CellForm, decode_cell


class StarterText(NamedTuple):
    """The text of a cell."""

    text: str
    blanked: bool
    """Whether it was not valid UTF-8, so that the empty text took its place."""


def starter_text(cell: str, is_response: bool, form: CellForm = "auto") -> StarterText:
    """Returns the first turn of a raw cell.

    In a response, `null` becomes two single quotes before it is parsed: alone the empty text, but `nullable` becomes
    `''able`. As a Python literal, the JSON escapes of a character beyond 16 bits, such as an emoji, are two lone
    surrogates; the whole text becomes empty. A cell that is no list of texts in Python's syntax, at which the starter
    fails, is read as `decode_cell` does.
    """
    source = cell.removeprefix(TYPED)
    turn = _first_literal(source.replace("null", "''") if is_response else source)
    if turn is None or (form == "text" and not cell.startswith(TYPED)):
        turn = next(iter(decode_cell(cell, form)), "")
    try:
        turn.encode("utf-8")
    except UnicodeEncodeError:
        return StarterText("", True)
    return StarterText(turn, False)


def _first_literal(source: str) -> str | None:
    """Returns the first of a list of texts in Python's syntax; None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JSON's escape of a slash is none of Python's, which keeps both characters
            value = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else None
