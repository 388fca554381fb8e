"""A slow, plain reading of CSV text and cells, written against the grammar and not against the readers.

One character at a time and one row at a time, in memory; what the readers make of any text must be the same.
"""

import json
import re
from typing import NamedTuple

from lmsys_ray.data.readers.row_shape import id_kind
from tests.data.bad_input.outcomes import NO_ID, Row

WIDTH = 4
_NAMES = ("prompt", "response_a", "response_b")


class Read(NamedTuple):
    """What becomes of a row: a record that can be scored has its cells, and which lines within it look like rows."""

    row: Row
    cells: list[str] | None = None
    inner: str | None = None


class Record(NamedTuple):
    """The record that begins at some line."""

    taken: int
    """How many lines it has."""
    cells: list[str]
    fault: str | None
    opened: list[tuple[int, int, int]]
    """For each quoted cell that holds a line end: the lines where it opens and closes, and how many cells the record
    would have up to the end of the first if its opening quote were text."""
    open: bool
    """Whether its last quote never closes."""
    loose: bool
    """Whether a quote stands in an unquoted cell."""
    returns: bool
    """Whether a carriage return stands outside quotes and ends no line."""
    quoted_end: bool
    """Whether its last cell is quoted."""


def rows_of(text: bytes) -> list[Read]:
    """Returns what becomes of each row below the header."""
    lines = [line.decode("utf-8", "surrogateescape") for line in re.findall(rb"[^\n]*\n|[^\n]+", text)]
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    kind = _kind(lines)
    found, place = [], 0
    while place < len(lines):
        record = _record(lines, place)
        if record.cells == [""] and not record.open and not lines[place].strip("\r\n"):
            place += 1
        elif not record.fault and not record.open and len(record.cells) == WIDTH:
            row = Row(*_checked(record.cells))
            found.append(Read(row, None if row.reason else record.cells[1:], _inner(lines, record, kind)))
            place += record.taken
        else:
            taken, fault = _given_up(lines, place, record, kind)
            named = f"lines {place + 2} to {place + 1 + taken}: " if taken > 1 else ""
            identity = record.cells[0] if record.cells else lines[place]
            found.append(Read(Row(_sure_id(identity), named + fault)))
            place += taken
    return found


def _given_up(lines: list[str], place: int, record: Record, kind: str) -> tuple[int, str]:
    """Returns how many lines a damaged record costs, and why it is none."""
    if record.open:
        opens, _, width = record.opened[-1]
        below = [line for line in lines[opens + 1 :] if line.strip("\r\n")]
        votes = [width == WIDTH, *(len(_alone(line).cells) == WIDTH and not _alone(line).open for line in below)]
        end = opens + 1
        if below and sum(votes) * 2 < len(votes):
            end = last = max(n for n, line in enumerate(lines) if line.strip("\r\n")) + 1
            while end - 1 > place and _is_whole(_alone(lines[end - 1]), kind):
                end -= 1
            end = len(lines) if end == last else end
        return end - place, "a quote is opened and never closed"
    fault = record.fault or f"has {len(record.cells)} cells where the header names {WIDTH}"
    if not record.fault and record.returns:
        fault = "a carriage return stands outside quotes"
    end = place + record.taken
    first = _swallowed(lines, place, record, kind)
    if first is not None:
        return first - place, fault
    if record.fault or (record.quoted_end and len(record.cells) < WIDTH):
        end = next((n for n in range(end, len(lines)) if _begins(lines[n], kind)), _without_blank(lines, end))
        while end > place + record.taken and not lines[end - 1].strip("\r\n"):
            end -= 1
    return end - place, fault


def _swallowed(lines: list[str], place: int, record: Record, kind: str) -> int | None:
    """Returns the line from which the lines of a record are rows by themselves to its last one."""
    last = place + record.taken - 1
    if last == place:
        return None
    tail = _record(lines, last)
    clean = not tail.open and not tail.loose and _is_whole(tail, kind)
    if not clean and not _is_whole(_alone(lines[last].replace('"', "'")), kind):
        return None
    first = last
    while first - 1 > place and _is_whole(_alone(lines[first - 1]), kind):
        first -= 1
    if not clean and not any(opens == first - 1 and width == WIDTH for opens, _, width in record.opened):
        return None
    behind = [line for line in lines[last + (tail.taken if clean else 1) :] if line.strip("\r\n")]
    return first if not behind or _begins(behind[0], kind) else None


def _inner(lines: list[str], record: Record, kind: str) -> str | None:
    looking = [
        number + 2
        for opens, closes, _ in record.opened
        for number in range(opens + 1, closes + 1)
        if _is_whole(_alone(lines[number]), kind) and not re.match("[^,]*, ", lines[number])
    ]
    if len(looking) < 2:
        return f"line {looking[0]} looks like a row" if looking else None
    return f"lines {looking[0]} to {looking[-1]} look like rows"


def _alone(line: str) -> Record:
    return _record([line], 0)


def _is_whole(record: Record, kind: str) -> bool:
    fits = not record.open and not record.fault and len(record.cells) == WIDTH
    return fits and re.fullmatch(kind, record.cells[0], re.ASCII) is not None


def _begins(line: str, kind: str) -> bool:
    first, comma, _ = line.partition(",")
    if len(first) > 1 and first.startswith('"') and first.endswith('"'):
        first = first[1:-1]
    return bool(comma) and re.fullmatch(kind, first, re.ASCII) is not None


def _without_blank(lines: list[str], end: int) -> int:
    return len(lines) if any(line.strip("\r\n") for line in lines[end:]) else end


def _kind(lines: list[str]) -> str:
    """What ids look like, by those of whole records, up to a quote that never closes, or else of lines."""
    ids, place, sure = [], 0, True
    while place < len(lines) and not (record := _record(lines, place)).open:
        fits = not record.fault and len(record.cells) == WIDTH
        damaged = record.fault or (record.quoted_end and len(record.cells) < WIDTH)
        if sure and (fits or damaged):
            ids.append(record.cells[0])
        sure = fits or (sure and not damaged)
        place += record.taken
    alone = [_alone(line) for line in lines]
    ids = ids or [record.cells[0] for record in alone if len(record.cells) == WIDTH and not record.open]
    return id_kind([identity.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for identity in ids]).pattern


def _record(lines: list[str], place: int) -> Record:
    """Returns the record that begins at a line, one character after the other."""
    cells, opened, fault, loose, returns = [], [], None, False, False
    cell, state, quoted, span = "", "start", False, None
    for number, line in enumerate(lines[place:], place):
        ends = len(line.rstrip("\r\n"))
        for at, character in enumerate(line):
            if state == "quoted":
                state = "closing" if character == '"' else state
                cell += character
                closes = number
            elif at >= ends or character == ",":
                if quoted and span[0] < closes:
                    opened.append((span[0], closes, span[1]))
                cells.append(cell[1:-1].replace('""', '"') if state == "closing" else cell)
                if at >= ends:
                    return Record(number - place + 1, cells, fault, opened, False, loose, returns, quoted)
                cell, state, quoted = "", "start", False
            elif state == "start" and character == '"':
                cell, state, quoted = character, "quoted", True
                span = number, len(cells) + 1 + line.count(",", at)
            else:
                cell += character
                if state == "closing":
                    fault = fault if character == '"' else fault or "text follows a closing quote"
                    state = "quoted" if character == '"' else "behind"
                elif not quoted:
                    loose, returns, state = loose or character == '"', returns or character == "\r", "plain"
    return Record(len(lines) - place, cells, fault, [*opened, (span[0], number, span[1])], True, loose, returns, quoted)


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
    """Whether a cell is plain text, or a list of nothing but turns: texts, nulls, numbers and booleans, or messages."""
    start = cell.lstrip()
    inner = start[1:].lstrip() if start.startswith("[") else None
    is_list = inner is not None and (
        (inner[:1] and inner[0] in "\"']")
        or re.match(r"(null|None)\b", inner) is not None
        or any(word.startswith(inner) for word in ("nul", "Non"))
    )
    if form == "text":
        return True
    try:
        value = json.loads(cell, strict=False)
    except RecursionError:
        return form == "auto" and not is_list and not _damaged_messages(start)
    except ValueError as error:
        if _printed(cell) == (True, "", True):
            return True
        return form == "auto" and not (_damaged_list(cell, error) if is_list else _damaged_messages(start))
    if form == "auto" and not is_list and not _names_roles(value):
        return True
    return _are_messages(value if isinstance(value, list) else [value]) or (
        isinstance(value, list) and not any(isinstance(turn, list | dict) for turn in value)
    )


def _printed(cell: str) -> tuple[bool, str, bool]:
    """Reads a list as Python or NumPy prints it: whether it closes, what is left, whether it may be a cut one."""
    rest, gaps, begun = cell.lstrip(), set(), False
    if not rest.startswith("["):
        return False, rest, False
    rest = rest[1:].lstrip(" \r\n")
    while len(gaps) < 2:
        turn = _printed_turn(rest)
        if not turn:
            break
        begun, rest = begun or turn != "None", rest[len(turn) :]
        behind = rest.lstrip(" \r\n")
        if behind.startswith("]"):
            return True, behind[1:].lstrip(), True
        if rest.startswith(","):
            gaps, behind = gaps | {","}, rest[1:].lstrip(" \r\n")
        elif behind != rest:
            gaps = gaps | {" "}
        else:
            break
        rest = behind
    is_open = re.fullmatch(r"'[^\\\r\n']*(\\\w*)?", _without_escapes(rest)) is not None
    return False, rest, begun or is_open or rest in ("", "N", "No", "Non")


def _printed_turn(text: str) -> str:
    """Returns the text in quotes, or the None, that `text` begins with; nothing where it begins otherwise."""
    if text.startswith("None") or text[:1] not in ("'", '"'):
        return "None" if text.startswith("None") else ""
    place, quote = 1, text[0]
    while place < len(text) and text[place] != quote:
        if text[place] in "\r\n":
            return ""
        place += 1
        if text[place - 1] == "\\":
            escape = re.match(r"[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4}", text[place:])
            if not escape:
                return ""
            place += escape.end()
    turn = text[: place + 1]
    return turn if place < len(text) and (quote == "'" or "'" in turn) else ""


def _without_escapes(text: str) -> str:
    return re.sub(r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4})", " ", text)


def _damaged_list(cell: str, error: ValueError) -> bool:
    """Whether what begins like a list, and is none, is refused: no plain text behind it, or cut or broken in a text."""
    if not isinstance(error, json.JSONDecodeError):
        return True
    inner = cell.lstrip()[1:].lstrip()
    if inner[:1] in ("'", "N"):
        closes, rest, begun = _printed(cell)
        return not rest.strip("]})\"',; \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003") if closes else begun
    rest = cell[error.pos :]
    if error.msg == "Extra data":
        return not rest.strip("]})\"',; \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2003")
    return '"' in cell[: error.pos + 1] or rest[:1].isspace() or rest.rstrip() in ("", "n", "nu", "nul")


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
