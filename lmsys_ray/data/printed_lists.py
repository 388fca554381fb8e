"""Lists of texts as Python and NumPy print them, which pandas' `to_csv` writes: `['first', "it's"]`, `['first' None]`.

Each text is written as by `repr`: in apostrophes, or in double quotes if it has an apostrophe, with special characters
escaped. Such a list that is also JSON, such as `["it's"]`, means the same either way.
"""

import re
from typing import NamedTuple

_ESCAPE = re.compile(r"\\(?:([\\'\"nrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4}))")
_ESCAPED = r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4})"
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t"}

_SPACE = r"[ \r\n]"
_WITHIN = {quote: rf"[^{quote}\\\r\n]*+(?:{_ESCAPED}[^{quote}\\\r\n]*+)*+" for quote in "'\""}
_TURN = re.compile(rf"""None|'({_WITHIN["'"]})'|"({_WITHIN['"']})\"""")
_CUT_TURN = re.compile(rf"""(?:N|No|Non|'{_WITHIN["'"]}(?:\\\w*)?)?\Z""")
_BEGIN = re.compile(rf"\s*\[{_SPACE}*")
_END = re.compile(rf"{_SPACE}*\]\s*")
_SEPARATOR = re.compile(rf"(,){_SPACE}*|{_SPACE}+")


class PrintedList(NamedTuple):
    """The result of reading a text as a printed list."""

    turns: list[str | None] | None
    """Its texts, None for those printed as None; None where the text is not such a list to its end."""
    end: int
    """The number of characters up to the end of the list and white space after it, or up to where the list breaks
    off."""
    begun: bool
    """Whether it has a text, or ends within the list, so that it may be a damaged or truncated list."""


def printed_list(text: str) -> PrintedList:
    """Reads the list at the beginning of a text."""
    begin = _BEGIN.match(text)
    if begin is None:
        return PrintedList(None, 0, False)
    place, turns, comma = begin.end(), list[str | None](), None
    while turn := _TURN.match(text, place):
        if turn[2] is not None and "'" not in turn[2]:
            break
        turns.append(_unescaped(turn[1] if turn[2] is None else turn[2]))
        place = turn.end()
        if end := _END.match(text, place):
            return PrintedList(turns, end.end(), True)
        separator = _SEPARATOR.match(text, place)
        if separator is None:
            break
        place = separator.end()
        if comma not in (None, separator[1] or ""):
            break
        comma = separator[1] or ""
    is_cut = _CUT_TURN.match(text, place) is not None
    return PrintedList(None, place, is_cut or any(turn is not None for turn in turns))


def _unescaped(written: str | None) -> str | None:
    return written if written is None or "\\" not in written else _ESCAPE.sub(_character, written)


def _character(escape: re.Match[str]) -> str:
    named, *numbers = escape.groups()
    return _CHARACTERS.get(named, named) if named else chr(int(next(filter(None, numbers)), 16))
