"""Text from elsewhere, such as file names, ids and locks, without characters that a terminal would interpret."""

import re

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, those that change the writing direction, and lone surrogates."""


def printable(text: str) -> str:
    """Returns `text` with such characters replaced by Python's escapes."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(line: str) -> None:
    """Prints a line, which may quote text from elsewhere."""
    print(printable(line), flush=True)
