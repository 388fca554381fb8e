"""Turns values into turns: lists of texts, or of chat messages as in APIs and data sets.

A message is `{"role": …, "content": …}` or `{"from": …, "value": …}`, with keys in any order and others allowed. Its
content is text, null, or a list of parts, `{"type": "text", "text": …}`, which are joined by line breaks.
"""

import json
import re
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

_ROLES = {
    **dict.fromkeys((USER, "human", "prompter"), USER),
    **dict.fromkeys((ASSISTANT, "gpt", "chatgpt", "bot", "model"), ASSISTANT),
    **dict.fromkeys((SYSTEM, "developer"), SYSTEM),
}
_TEXT_PARTS = (None, "text", "input_text", "output_text")
# One text at a time: the encoder does that in C, and lists in Python.
_ENCODE = json.JSONEncoder().encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[\w-]{1,20}", re.ASCII)

# Either kind of quotes: a list that Python printed begins like one too and is not plain text.
_ROLE = rf"""["'](?:role|from)["']\s*:\s*["'](?i:{"|".join(_ROLES)})["']"""
_CHAT_ROLE = re.compile(_ROLE)
_OBJECT = re.compile(r"""\s*(?:\[\s*)?\{\s*["'}]""")
_BEGINS_MESSAGES = re.compile(rf"""\s*(?:\[\s*\{{|\{{\s*(?:["'](?:content|value)["']|{_ROLE}))""")


class BadCellError(ValueError):
    """A cell that cannot be decoded; the message says why, without quoting the cell."""


class Turns(NamedTuple):
    """The turns of a cell."""

    texts: list[str | None]
    """The text of each turn, which may have lone surrogates; None where it is missing."""
    roles: frozenset[str] | None = None
    """The roles of messages, `USER`, `ASSISTANT` and `SYSTEM`; None where the turns were not messages."""
    rewritten: bool = False
    """Whether the cell was not yet the JSON list of these texts that members know."""
    plain: bool = False
    """Whether the cell is plain text, the one turn."""


def without_lone_surrogates(text: str) -> str:
    """Returns a text with U+FFFD for each lone surrogate, which UTF-8 cannot hold."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


class Message(NamedTuple):
    """A chat message."""

    role: str
    """`USER`, `ASSISTANT` or `SYSTEM`."""
    text: str


def begins_like_objects(cell: str) -> bool:
    """Returns whether a text begins like a JSON object or a list of them, which may be messages."""
    return _OBJECT.match(cell) is not None


def begins_like_messages(cell: str) -> bool:
    """Returns whether a text that is not JSON begins like messages and names a role: it is damaged, not plain text."""
    return _BEGINS_MESSAGES.match(cell) is not None and _CHAT_ROLE.search(cell) is not None


def is_message(keys: Container[str]) -> bool:
    """Returns whether an object with these keys is a message, with or without a role."""
    return "content" in keys or ("from" in keys and "value" in keys)


def holds_messages(value: object) -> bool:
    """Returns whether a JSON value is one or more messages with roles, rather than other data."""
    if isinstance(value, dict):
        return is_message(value) and ("role" in value or "from" in value)
    if not isinstance(value, list):
        return False
    return any(isinstance(item, dict) and (holds_messages(item) or _role_name(item) in _ROLES) for item in value)


def turns_of(value: object) -> Turns:
    """Returns the turns in a list, or in one message; a number or a boolean becomes its JSON text.

    Raises `BadCellError` for anything but texts and messages, for content that is not text, an unknown role, and for
    messages of both the user and the assistant; `UnicodeDecodeError` for bytes that are not UTF-8.
    """
    values = [value] if isinstance(value, dict) and is_message(value) else value
    if not isinstance(values, list):
        raise BadCellError(f"is JSON but no list of turns (found {_kind(value)})")
    if isinstance(next((item for item in values if item is not None), None), dict):
        return _messages(values)
    return Turns([_plain_turn(item, number) for number, item in enumerate(values, 1)])


def typed_turns(value: list[Any] | dict[str, Any]) -> Turns:
    """Returns the turns of a value that its file types as a list or an object.

    Raises as `turns_of` does, and `BadCellError` for a list of only numbers, such as token ids.
    """
    if isinstance(value, dict) and not is_message(value):
        raise BadCellError("is neither text nor a list of turns")
    turns = turns_of(value)
    known = [(number, item) for number, item in enumerate(value, 1) if item is not None]
    if turns.roles is None and known and not any(isinstance(item, str | bytes) for _, item in known):
        raise BadCellError(f"has {_kind(known[0][1])} as turn {known[0][0]} where text is expected")
    return turns


def chat_messages(value: object) -> list[Message]:
    """Returns the messages in a list of them, or in one message; without roles, the user and the assistant take turns.

    Texts in the list are messages too. Raises as `turns_of` does, but messages of different roles may be mixed.
    """
    values = [value] if isinstance(value, dict) else value
    if not isinstance(values, list):
        raise BadCellError(f"has {_kind(values)} where a list of messages is expected")
    messages = []
    for number, item in enumerate(values, 1):
        if type(item) is dict and item.get("role") in (USER, ASSISTANT) and type(item.get("content")) is str:
            messages.append(Message(item["role"], item["content"]))  # most of them: the rest takes thrice the time
            continue
        if isinstance(item, dict) and is_message(item):
            role = _role(item, number)
            text = _content(item["content"] if "content" in item else item["value"], number)
        elif isinstance(item, str | bytes):
            role, text = None, _text(item)
        else:
            found = "an object without content" if isinstance(item, dict) else _kind(item)
            raise BadCellError(f"has {found} as turn {number} where a message is expected")
        messages.append(Message(role or (USER, ASSISTANT)[(number - 1) % 2], text))
    return messages


def check_roles(column: str, turns: Turns) -> None:
    """Raises `BadCellError` where messages in a prompt are not the user's, or in a response not the assistant's."""
    foreign = (turns.roles or frozenset()) & ({ASSISTANT} if column == "prompt" else {USER, SYSTEM})
    if foreign:
        mine, other = ("user", "a response") if column == "prompt" else ("assistant", "the prompt")
        names = " and ".join(sorted(foreign))
        raise BadCellError(f"holds messages of {names}; give those of the {mine} alone, others in {other}")


def json_text(turns: Turns) -> str:
    """Returns turns as JSON text, with escapes as in the competition's files."""
    return json_list(turns.texts)


def json_list(texts: Iterable[str | None]) -> str:
    """Returns the texts of turns as `json_text` does."""
    return f"[{','.join(['null' if text is None else _ENCODE(text) for text in texts])}]"


def _plain_turn(turn: object, number: int) -> str | None:
    if turn is None:
        return None
    if isinstance(turn, str | bytes):
        return _text(turn)
    if isinstance(turn, bool | int | float):
        return json.dumps(turn)
    raise BadCellError(f"has {_kind(turn)} as turn {number} where text is expected")


def _messages(values: Sequence[object]) -> Turns:
    texts: list[str | None] = []
    roles = set()
    for number, item in enumerate(values, 1):
        if item is None:
            texts.append(None)
            continue
        if not isinstance(item, dict) or not is_message(item):
            found = "an object without content" if isinstance(item, dict) else _kind(item)
            raise BadCellError(f"has {found} as turn {number} where a message is expected")
        role = _role(item, number)
        roles |= {role} if role is not None else set()
        texts.append(_content(item["content"] if "content" in item else item["value"], number))
    if {USER, ASSISTANT} <= roles:
        raise BadCellError(
            "holds messages of both user and assistant; give the user's in prompt, the assistant's in a response"
        )
    return Turns(texts, frozenset(roles), rewritten=True)


def _role(item: dict[str, object], number: int) -> str | None:
    """Returns the role of a message, None where it names none; raises `BadCellError` for an unknown one."""
    name = _role_name(item)
    if name is None:
        return None
    if name not in _ROLES:
        raise BadCellError(f"has {_shown(name)} as role of turn {number}; accepted: {', '.join(_ROLES)}")
    return _ROLES[name]


def _role_name(item: dict[str, object]) -> str | None:
    """Returns the role in the form that is compared; None where the message has none."""
    role = item.get("role", item.get("from"))
    return None if role is None else str(role).casefold()


def _content(content: object, number: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str | bytes):
        return _text(content)
    if isinstance(content, list):
        return "\n".join(_part(part, number) for part in content if part is not None)
    raise BadCellError(f"has {_kind(content)} as content of turn {number} where text is expected")


def _part(part: object, number: int) -> str:
    if isinstance(part, str | bytes):
        return _text(part)
    if not isinstance(part, dict):
        raise BadCellError(f"has {_kind(part)} as a part of turn {number} where text is expected")
    if part.get("type") not in _TEXT_PARTS:
        raise BadCellError(f"has a part of type {_shown(part['type'])} in turn {number}; text alone can be scored")
    text = part.get("text")
    if not isinstance(text, str | bytes):
        raise BadCellError(f"has a part without text in turn {number}; text alone can be scored")
    return _text(text)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8")


def _shown(name: object) -> str:
    """Returns a name from the cell for a message, unless it may be running text."""
    return repr(name) if isinstance(name, str) and _NAME.fullmatch(name) else "another name"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value)) or ("a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
