"""Tells in a rendered chat which text is from cells and which is the template's.

The texts of cells are rendered between marks. White space around a text stays outside, so that templates that trim
their messages trim it. What comes out must, without its marks, be what the template makes of the plain messages.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lmsys_ray.prompts.chat import Message
from lmsys_ray.prompts.template import Filled, Template

Render = Callable[[Sequence[Message]], str]


@dataclass(frozen=True)
class Part:
    """A part of a message: the text of a cell, or literal text, which has no `cell`."""

    text: str
    cell: str | None = None
    """The cell, and after a dot what tells this text from others of it, as in `Filled`."""


@dataclass(frozen=True)
class ChatMessage:
    """A message made of parts."""

    role: str
    parts: Sequence[Part]

    @property
    def plain(self) -> Message:
        """The message as a chat template takes it."""
        return self.role, "".join(part.text for part in self.parts)


class Marks:
    """Marks that no text can contain; `sought` are the texts that the template looks for within messages."""

    def __init__(self, sought: Sequence[str]) -> None:
        self._key = secrets.token_hex(8)
        self._mark = re.compile(f"\ufdd2{self._key}([be]\\d+)\ufdd3")
        self._sought = re.compile(f"({'|'.join(map(re.escape, sought))})") if sought else None

    def taken_apart(self, messages: Sequence[ChatMessage], render: Render) -> Filled | None:
        """Returns the rendered messages, each text of a cell as a field; none where the template rewrites a text.

        A text that the template takes apart, since it finds what it looks for, is marked piece by piece; what it looks
        for then counts as the template's.
        """
        whole = render([message.plain for message in messages])
        found, rewritten = self._attempt(messages, render, whole, ())
        if found is None and self._sought:
            found, _ = self._attempt(messages, render, whole, rewritten)
        return found

    def _attempt(
        self, messages: Sequence[ChatMessage], render: Render, whole: str, in_pieces: Collection[str]
    ) -> tuple[Filled | None, set[str]]:
        """Returns the marked rendering taken apart, or none and the cells whose texts are not whole in it."""
        cells: list[tuple[str, str]] = []
        marked = [
            (message.role, "".join(self._marked(part, cells, part.cell in in_pieces) for part in message.parts))
            for message in messages
        ]
        texts = self._mark.split(render(marked))
        plain, marks = texts[::2], texts[1::2]
        if "".join(plain) != whole:
            return None, {cell for cell, _ in cells}
        if broken := _broken(marks, plain[1:-1], cells):
            return None, {cells[number][0] for number in broken}
        names = [f"{cells[int(mark[1:])][0]}.{place}" for place, mark in enumerate(marks[::2])]
        return Filled(Template(tuple(plain[::2]), tuple(names)), dict(zip(names, plain[1::2], strict=True))), set()

    def _marked(self, part: Part, cells: list[tuple[str, str]], in_pieces: bool) -> str:
        """Returns the text of a part with marks; numbers in them are places in `cells`, which takes cell and text."""
        if part.cell is None:
            return part.text
        pieces = self._sought.split(part.text) if in_pieces and self._sought else [part.text]
        return "".join(
            piece if place % 2 else self._between_marks(piece, part.cell, cells) for place, piece in enumerate(pieces)
        )

    def _between_marks(self, text: str, cell: str, cells: list[tuple[str, str]]) -> str:
        if not (core := text.strip()):
            return text
        number, start = len(cells), len(text) - len(text.lstrip())
        cells.append((cell, core))
        begin, end = f"\ufdd2{self._key}b{number}\ufdd3", f"\ufdd2{self._key}e{number}\ufdd3"
        return f"{text[:start]}{begin}{core}{end}{text[start + len(core) :]}"


def _broken(marks: Sequence[str], between: Sequence[str], cells: Sequence[tuple[str, str]]) -> set[int]:
    """Returns which texts do not stand once between their marks, as they are; `between` is what follows each mark."""
    seen, whole = Counter(int(mark[1:]) for mark in marks), Counter[int]()
    for (begin, end), text in zip(pairwise(marks), between, strict=True):
        number = int(begin[1:])
        whole[number] += begin == f"b{number}" and end == f"e{number}" and text == cells[number][1]
    return {number for number, times in seen.items() if times != 2 or whole[number] != 1}
