"""A slow, plain reading of CSV text and cells, written against the grammar and not against the readers.

One character at a time and one row at a time, in memory; what the readers make of any text must be the same.
"""

import json
import re

from tests.bad_input.outcomes import NO_ID, Row

WIDTH = 4
_NAMES = ("prompt", "response_a", "response_b")


def rows_of(text: bytes) -> list[tuple[Row, list[str] | None]]:
    """Returns what becomes of each row below the header, and the cells of one that can be scored."""
    lines = [line.decode("utf-8", "surrogateescape") for line in re.findall(rb"[^\n]*\n|[^\n]+", text)]
    found, place = [], 0
    while place < len(lines):
        taken, cells, error = _record(lines, place)
        first = lines[place].split(",", 1)[0]
        place += taken
        if error:
            found.append((Row(_sure_id(first), error), None))
        elif cells and len(cells) != WIDTH:
            found.append((Row(_sure_id(cells[0]), f"has {len(cells)} cells where the header names {WIDTH}"), None))
        elif cells:
            row = Row(*_checked(cells))
            found.append((row, None if row.reason else cells[1:]))
    return found


def _record(lines: list[str], place: int) -> tuple[int, list[str], str | None]:
    """Returns how many lines the record at `place` takes, its cells, and why it is none where it takes one by error."""
    cells, cell, state, blank = [], "", "start", True
    for taken, line in enumerate(lines[place:], 1):
        body = line.removesuffix("\n")
        for character in body:
            if state == "ended":
                if character != "\r":
                    return 1, [], "a carriage return stands outside quotes"
            elif state == "quoted":
                cell, state = (cell, "closing") if character == '"' else (cell + character, state)
            elif state == "closing" and character == '"':
                cell, state = cell + '"', "quoted"
            elif character == ",":
                cells, cell, state = [*cells, cell], "", "start"
                blank = False
            elif character == "\r":
                state = "ended"
            elif state == "closing":
                return 1, [], "text follows a closing quote"
            elif state == "start" and character == '"':
                state, blank = "quoted", False
            else:
                cell, state, blank = cell + character, "plain", False
        if state != "quoted":
            return taken, [] if blank else [*cells, cell], None
        cell += line[len(body) :]
    return 1, [], "a quote is opened and never closed"


def _sure_id(cell: str) -> str | None:
    plain = 0 < len(cell) <= 64 and all(c.isalnum() or c in "_.:-" for c in cell)
    return cell if plain and any(c in "0123456789" for c in cell) else None


def _checked(cells: list[str]) -> tuple[str | None, str | None]:
    """Returns the id and the reason of a whole record."""
    identity = cells[0]
    if bad := _first_bad_byte(identity):
        return None, f"id is not valid UTF-8 (byte {bad})"
    if not identity.strip():
        return None, NO_ID
    if "\n" in identity or "\r" in identity:
        return None, "id holds a line break"
    utf8 = [(name, _first_bad_byte(cell)) for name, cell in zip(_NAMES, cells[1:], strict=True)]
    for (name, bad), cell in zip(utf8, cells[1:], strict=True):
        if bad:
            return identity, f"{name} is not valid UTF-8 (byte {bad})"
        if not decodes(cell):
            return identity, f"{name} "  # the rest is the decoder's own wording
    return identity, None


def _first_bad_byte(text: str) -> str | None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"0x{data[error.start]:02x}"
    return None


def decodes(cell: str, form: str = "auto") -> bool:
    """Whether a cell is plain text, or JSON of nothing but turns: texts, nulls, numbers and booleans, or messages."""
    start = cell.lstrip()
    inner = start[1:].lstrip() if start.startswith("[") else None
    is_list = inner is not None and (inner == "" or inner[0] in '"]' or re.match(r"null\b", inner) is not None)
    if form == "text":
        return True
    try:
        value = json.loads(cell, strict=False)
    except (ValueError, RecursionError):
        return form == "auto" and not is_list and not _damaged_messages(start)
    if form == "auto" and not is_list and not _names_roles(value):
        return True
    return _are_messages(value if isinstance(value, list) else [value]) or (
        isinstance(value, list) and not any(isinstance(turn, list | dict) for turn in value)
    )


def _damaged_messages(start: str) -> bool:
    """Whether text, which is no JSON, begins like an object and has a role, in the one kind of quotes or the other."""
    text = start.replace("'", '"')
    inner = text.removeprefix("[").lstrip()
    if not inner.startswith("{") or inner[1:].lstrip()[:1] not in ('"', "}"):
        return False
    roles = list(re.finditer(r'"(role|from)"\s*:\s*"(user|assistant|system)"', text))
    begins = re.match(r'\{\s*"(content|value)"', inner) or any(inner[1:].lstrip().startswith(r[0]) for r in roles)
    return bool(roles) and bool(text.startswith("[") or begins)


def _names_roles(value: object) -> bool:
    objects = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
    if isinstance(value, list) and value[:1] != objects[:1]:
        return False
    known = [item for item in objects if (item.get("role") or item.get("from")) in ("user", "assistant", "system")]
    whole = [i for i in objects if ("content" in i and ("role" in i or "from" in i)) or ("from" in i and "value" in i)]
    return bool(whole or (known and isinstance(value, list)))


def _are_messages(values: list[object]) -> bool:
    """Whether all values are nulls or messages of a prompt, their content text, null or parts of text."""
    known = [value for value in values if value is not None]
    for value in known:
        if not isinstance(value, dict):
            return False
        role = value.get("role", value.get("from"))
        content = value["content"] if "content" in value else value.get("value", 0) if "from" in value else 0
        parts = content if isinstance(content, list) else [content]
        parts = [part.get("text", 0) if isinstance(part, dict) else part for part in parts]
        if role not in (None, "user", "system") or any(not isinstance(part, str | None) for part in parts):
            return False
    return bool(known)
