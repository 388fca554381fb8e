"""Which turns of a conversation are read, and which response answers which prompt."""

from collections.abc import Sequence
from typing import Literal

TurnChoice = Literal["all", "first", "last"]

JOINED_BY = "\n\n"
"""What stands between turns that are read as one text."""


def chosen(turns: Sequence[str], choice: TurnChoice) -> list[str]:
    """Returns the turns of a cell that are read."""
    if choice == "first":
        return list(turns[:1])
    return list(turns[-1:] if choice == "last" else turns)


def exchanges(prompt: Sequence[str], response: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each turn of the prompt with the turn of the response that answers it: at least one exchange.

    Where one side has more turns, its surplus belongs to the first exchange, joined by blank lines: it is a system
    message or context more often than an answer that is missing. So every text is read, no turn is made up, and the
    last response answers the last prompt. A side without turns is the empty text.
    """
    count = max(1, min(len(prompt), len(response)))
    first = JOINED_BY.join(prompt[: len(prompt) - count + 1]), JOINED_BY.join(response[: len(response) - count + 1])
    after = zip(prompt[len(prompt) - count + 1 :], response[len(response) - count + 1 :], strict=True)
    return [first, *after]
