"""The text of a row: literals around the three fields of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter

from lmsys_ray.conversations import CELLS
from lmsys_ray.errors import UsageError

PACKAGED = {
    # The reference notebook's, to the letter: note the space before the colon of "Model A :".
    "notebook": "User prompt: {prompt}\n\nModel A :\n{response_a}\n\n--------\n\nModel B:\n{response_b}",
    # Ends in a question, so that every row is pooled at the same token (with balanced truncation, always).
    "labelled": (
        "### Prompt\n{prompt}\n\n### Response A\n{response_a}\n\n### Response B\n{response_b}\n\n"
        "### Which response is better: A, B or tie?\n"
    ),
}
"""Templates that settings name: `notebook` and `labelled`."""


@dataclass(frozen=True)
class Template:
    """Literals and fields in turn: `literals[0] fields[0] literals[1] ... fields[-1] literals[-1]`."""

    literals: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, setting: str) -> Template:
        """Reads the name of a packaged template, or a text with placeholders; `{{` and `}}` stand for braces.

        Raises `UsageError` for an unknown name or placeholder, a placeholder given twice or with a format, and a text
        that leaves a response out or has nothing but placeholders.
        """
        if setting not in PACKAGED and "{" not in setting:
            known = ", ".join(PACKAGED)
            raise UsageError(f"template: {setting!r} is neither one of {known} nor a text with {{prompt}} and so on")
        literals, fields = [""], list[str]()
        for literal, field in _pieces(PACKAGED.get(setting, setting)):
            literals[-1] += literal
            if field is not None:
                fields.append(_known(field, fields))
                literals.append("")
        for field in ("response_a", "response_b"):
            if field not in fields:
                raise UsageError(f"template: {setting!r} has no {{{field}}}; add it where that response belongs")
        if not any(literals):
            raise UsageError(f"template: {setting!r} has no text of its own, which tells the fields apart; add some")
        return cls(tuple(literals), tuple(fields))

    def render(self, texts: dict[str, str]) -> str:
        """Puts `texts` (by field) in place, as they are: braces inside them mean nothing."""
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            parts += texts[field], literal
        return "".join(parts)

    def spans(self, texts: dict[str, str]) -> list[tuple[int, int]]:
        """Returns where each field begins and ends in `render(texts)`, in characters, in the order of `fields`."""
        spans, position = [], 0
        for literal, field in zip(self.literals, self.fields, strict=False):
            start = position + len(literal)
            position = start + len(texts[field])
            spans.append((start, position))
        return spans


def _pieces(text: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"template: {text!r} does not parse ({error}); write a brace itself twice") from None
    for _, field, form, conversion in parsed:
        if form or conversion:
            raise UsageError(f"template: the placeholder {{{field}}} takes no format or conversion; name it alone")
    return [(literal, field) for literal, field, _, _ in parsed]


def _known(field: str, before: list[str]) -> str:
    if field not in CELLS:
        accepted = ", ".join(f"{{{cell}}}" for cell in CELLS)
        raise UsageError(f"template: {{{field}}} is no placeholder; accepted are {accepted}, a brace itself is doubled")
    if field in before:
        raise UsageError(f"template: {{{field}}} stands there twice; name each field once")
    return field
