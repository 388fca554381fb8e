"""Reads the values of records: texts, messages, labels and names, typed or as text."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from lmsys_ray.data.printed_lists import printed_list
from lmsys_ray.data.schemas.row import TIE, A, B, Record
from lmsys_ray.data.turns import (
    ASSISTANT,
    SYSTEM,
    USER,
    BadCellError,
    Message,
    chat_messages,
    holds_messages,
    without_lone_surrogates,
)

_DECODE = json.JSONDecoder(strict=False).decode
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?")
_PRINTED_OBJECTS = re.compile(r"\s*\[?\s*\{\s*'(?:role|content|from|value)'")
_TURN_TOKEN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
"""Begins a turn in the prompts of HelpSteer2."""

DIALOGUE = re.compile(r"\s*Human:")
"""The beginning of a text that is a dialogue."""

_GAP = "\n\n"

WINNERS = {
    **dict.fromkeys(("model_a", "a", "response_a", "assistant_a"), A),
    **dict.fromkeys(("model_b", "b", "response_b", "assistant_b"), B),
    **dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "bothbad", "both bad", "both good", "both_good", "draw"), TIE),
}
"""What columns named `winner` hold, in small letters."""


ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
"""The columns of the contest's labels, in the order of `lmsys_ray.CLASSES`; one of them is 1."""

TRUE, FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")
"""What these columns hold, in small letters."""


def one_hot_class(values: Sequence[object]) -> int | None:
    """Returns the place of the only value that is one of `TRUE` where the others are of `FALSE`; None where none is."""
    marks = [str(value).strip().lower() for value in values]
    chosen = [place for place, mark in enumerate(marks) if mark in TRUE]
    return chosen[0] if len(chosen) == 1 and sum(mark in FALSE for mark in marks) == len(marks) - 1 else None


def present(value: Any) -> bool:
    """Returns whether a value is there: not null, not NaN, not an empty text."""
    return not (value is None or value == "" or (isinstance(value, float) and math.isnan(value)))


def parsed(value: Any) -> Any:
    """Returns what a text that is JSON, or a list as Python prints it, stands for; any other value as it is.

    Raises `BadCellError` for JSON that is nested too deeply.
    """
    text = _decoded(value) if isinstance(value, bytes) else value
    if not isinstance(text, str) or text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return _DECODE(text)
    except RecursionError:
        raise BadCellError("is JSON nested too deeply") from None
    except ValueError:
        pass
    if _PRINTED_OBJECTS.match(text):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
    printed = printed_list(text)
    return text if printed.turns is None or printed.end < len(text) else printed.turns


def text_of(record: Record, column: str) -> str:
    """Returns the text in a column, empty where it is null; raises `BadCellError` for anything but text."""
    value = record.get(column)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _decoded(value)
    if not isinstance(value, str):
        raise BadCellError(f"{column} has {type(value).__name__} where text is expected")
    return value


def needed(record: Record, column: str) -> Any:
    """Returns the value in a column; raises `BadCellError` where it is missing."""
    if record.get(column) is None:
        raise BadCellError(f"{column} is missing")
    return record[column]


def name_of(record: Record, column: str) -> str | None:
    """Returns a name, such as that of a model, as text; None where there is none."""
    value = record.get(column)
    if type(value) is str and value.isascii():
        return value or None
    if not present(value):
        return None
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return _decoded(value) if isinstance(value, bytes) else without_lone_surrogates(str(value))


def number_of(record: Record, column: str) -> float | None:
    """Returns a number, typed or as text; None where there is none, and for what is no number."""
    value: Any = record.get(column)
    if not present(value) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def messages_of(record: Record, column: str) -> list[Message] | None:
    """Returns the messages in a column, also those that a text holds as JSON with roles; None for any other text.

    Raises `BadCellError` where it holds neither, or is missing.
    """
    value = needed(record, column)
    if isinstance(value, str | bytes):
        value = parsed(value)
        if not holds_messages(value):
            return None
    try:
        return chat_messages(value)
    except BadCellError as error:
        raise BadCellError(f"{column} {error}") from None


def dialogue_of(record: Record, column: str) -> list[Message]:
    """Returns the turns of a text in which each begins with Human: or Assistant: after an empty line.

    Raises `BadCellError` for any other text.
    """
    needed(record, column)
    text = text_of(record, column)
    pieces = _SPEAKER.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadCellError(f"{column} does not begin with Human: or Assistant:")
    said = zip(pieces[1::2], pieces[2::2], strict=True)
    return [Message(USER if speaker == "Human" else ASSISTANT, text.strip()) for speaker, text in said]


def prompt_of(record: Record, column: str) -> tuple[list[str], list[str | None]]:
    """Returns a prompt as `exchanges_of` does: messages, a dialogue that breaks off for the answer, or plain text."""
    messages = messages_of(record, column)
    if messages is not None:
        return exchanges_of(messages)
    text = text_of(record, column)
    if DIALOGUE.match(text):
        messages = dialogue_of(record, column)
        messages = messages[:-1] if messages[-1] == Message(ASSISTANT, "") else messages
    else:
        pieces = _TURN_TOKEN.split(text)
        said = zip(pieces[1::2], pieces[2::2], strict=True)
        later = [Message(USER if speaker == "User" else ASSISTANT, text) for speaker, text in said]
        messages = [*user_messages(pieces[0]), *later]
    return exchanges_of(messages)


def exchanges_of(messages: Sequence[Message]) -> tuple[list[str], list[str | None]]:
    """Returns the turns of the user, and the answer to each, None where it has none.

    Messages of one role in a row are one turn, and a system message begins the user's turn that follows it.
    """
    asked: list[str] = []
    answers: list[str | None] = []
    system: list[str] = []
    for role, text in messages:
        if role == SYSTEM:
            system.append(text)
        elif role == ASSISTANT:
            if not asked:
                asked, answers = [_GAP.join(system)], [None]
                system = []
            earlier = answers[-1]
            answers[-1] = text if earlier is None else earlier + _GAP + text
        elif asked and answers[-1] is None and not system:
            asked[-1] += _GAP + text
        else:
            asked.append(_GAP.join([*system, text]))
            answers.append(None)
            system = []
    return asked, answers


def alternating_exchanges(value: object) -> tuple[list[str], list[str | None]] | None:
    """Returns what `exchanges_of` makes of messages in which user and assistant take turns; None for any other value.

    Most conversations are like that, and it takes a third of the time.
    """
    if type(value) is not list or len(value) % 2:
        return None
    asked: list[str] = []
    answers: list[str | None] = []
    for question, answer in zip(value[::2], value[1::2], strict=True):
        if not (type(question) is type(answer) is dict):
            return None
        if question.get("role") != USER or answer.get("role") != ASSISTANT:
            return None
        said, reply = question.get("content"), answer.get("content")
        if not (type(said) is type(reply) is str):
            return None
        asked.append(said)
        answers.append(reply)
    return asked, answers


def assistant_messages(text: str) -> list[Message]:
    """Returns a response as the one message of an assistant."""
    return [Message(ASSISTANT, text)]


def user_messages(text: str) -> list[Message]:
    """Returns a prompt as the one message of a user."""
    return [Message(USER, text)]


def continued(answers: Sequence[str | None], response: str) -> list[str | None]:
    """Returns the answers so far, and `response` as the answer to the last turn of the user.

    Raises `BadCellError` where that has an answer already.
    """
    if answers and answers[-1] is not None:
        raise BadCellError("the prompt ends with a message of the assistant, so that the responses answer nothing")
    return [*answers[:-1], response]


def winner(record: Record, column: str) -> tuple[int | None, str | None]:
    """Returns the class in a column such as `winner`, and a warning where it holds something unknown."""
    value = name_of(record, column)
    if value is None:
        return None, None
    found = WINNERS.get(value.strip().casefold())
    warning = None if found is not None else f"{column} is {value[:20]!r}, which names no winner: the row has no label"
    return found, warning


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadCellError(f"is not valid UTF-8 (byte 0x{value[error.start]:02x})") from None
