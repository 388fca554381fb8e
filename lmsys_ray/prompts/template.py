"""The text of a row: literal text around the fields of a conversation.

The field `conversation_a` is the whole conversation with the model A: `User: …`, a blank line, `Assistant: …`, a blank
line, and so on. Its labels are literal text, and each of its turns is a field of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.turns import JOINED_BY, exchanges

PACKAGED = {
    # Exactly that of the reference notebook: note the space before the colon of "Model A :".
    "notebook": "User prompt: {prompt}\n\nModel A :\n{response_a}\n\n--------\n\nModel B:\n{response_b}",
    # Ends in a question, so that with balanced truncation every row is pooled at the same token.
    "labelled": (
        "### Prompt\n{prompt}\n\n### Response A\n{response_a}\n\n### Response B\n{response_b}\n\n"
        "### Which response is better: A, B or tie?\n"
    ),
}
"""Templates by the names that settings use."""

_CONVERSATIONS = {"conversation_a": "response_a", "conversation_b": "response_b"}
"""The fields that hold a whole conversation, and the cell of its responses."""

FIELDS = (*CELLS, *_CONVERSATIONS)

ONE_RESPONSE = ("prompt", "response")
"""The fields where a model reads one response at a time."""

USER_LABEL, ASSISTANT_LABEL = "User: ", "Assistant: "


@dataclass(frozen=True)
class Template:
    """Literals and fields alternate: `literals[0] fields[0] literals[1] ... fields[-1] literals[-1]`."""

    literals: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, setting: str, packaged: Mapping[str, str] = PACKAGED, key: str = "template") -> Template:
        """Parses the name of a packaged template, or a text with placeholders; `{{` and `}}` stand for braces.

        `key` is the name of the setting, for error sentences. Raises `UsageError` for an unknown name or placeholder, a
        placeholder given twice or with a format, and a text that lacks a response or consists of placeholders only.
        """
        if setting not in packaged and "{" not in setting:
            known = ", ".join(packaged)
            raise UsageError(f"{key}: {setting!r} is neither one of {known} nor a text with {{prompt}} and so on")
        fields = list[str]()
        template = cls._parsed(packaged.get(setting, setting), fields, key)
        _check_responses(setting, fields, key)
        return template

    @classmethod
    def parse_pair(cls, settings: Sequence[str], key: str = "template") -> tuple[Template, Template]:
        """Parses two texts with placeholders, which together make a row; raises as `parse` does.

        A text may be one placeholder alone, since the tokenizer tells the texts apart.
        """
        fields = list[str]()
        first, second = (cls._parsed(setting, fields, key) for setting in settings)
        _check_responses(list(settings), fields, key)
        return first, second

    @classmethod
    def of_one_response(cls, setting: str, key: str = "template") -> Template:
        """Parses a text with the placeholders {prompt} and {response}, for models that read one response at a time.

        Raises `UsageError` as `parse` does, and where there is no {response}.
        """
        parsed = cls._parsed(setting, [], key, ONE_RESPONSE)
        if "response" not in parsed.fields:
            raise UsageError(f"{key}: {setting!r} has no {{response}}; add it where it belongs")
        return parsed

    @classmethod
    def _parsed(cls, text: str, before: list[str], key: str, known: Sequence[str] = FIELDS) -> Template:
        """Parses a text; its fields are added to those that stand `before` it."""
        literals, fields = [""], list[str]()
        for literal, field in _pieces(text, key):
            literals[-1] += literal
            if field is not None:
                fields.append(_known(field, [*before, *fields], key, known))
                literals.append("")
        if len(fields) > 1 and not any(literals):
            raise UsageError(f"{key}: {text!r} has no text of its own, which tells the fields apart; add some")
        before += fields
        return cls(tuple(literals), tuple(fields))

    @property
    def has_conversations(self) -> bool:
        """Whether a field holds a whole conversation."""
        return not _CONVERSATIONS.keys().isdisjoint(self.fields)

    def filled(self, turns: Mapping[str, Sequence[str]]) -> Filled:
        """Inserts the turns of each cell, those of a simple field joined by blank lines."""
        texts = {field: JOINED_BY.join(turns[field]) for field in self.fields if field not in _CONVERSATIONS}
        if not self.has_conversations:
            return Filled(self, texts)
        literals, fields = [self.literals[0]], list[str]()
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            if field in _CONVERSATIONS:
                for name, text, label in _labelled(field, turns):
                    literals[-1] += label
                    fields.append(name)
                    literals.append("")
                    texts[name] = text
            else:
                fields.append(field)
                literals.append("")
            literals[-1] += literal
        return Filled(Template(tuple(literals), tuple(fields)), texts)

    def render(self, texts: Mapping[str, str]) -> str:
        """Inserts `texts` (by field) as they are: braces inside them have no meaning."""
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            parts += texts[field], literal
        return "".join(parts)

    def spans(self, texts: Mapping[str, str]) -> list[tuple[int, int]]:
        """Returns where each field begins and ends in `render(texts)`, in characters, in the order of `fields`."""
        spans, position = [], 0
        for literal, field in zip(self.literals, self.fields, strict=False):
            start = position + len(literal)
            position = start + len(texts[field])
            spans.append((start, position))
        return spans


@dataclass(frozen=True)
class Filled:
    """The template of one row and the text of each of its fields.

    A field is named after the cell that it is from: a turn of a conversation is `prompt.` or `response_a.` and what
    tells it from others.
    """

    template: Template
    texts: Mapping[str, str]

    @property
    def text(self) -> str:
        """The text of the row."""
        return self.template.render(self.texts)


def _labelled(conversation: str, turns: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """Returns the turns of a conversation: a name, the text, and the label before it."""
    response = _CONVERSATIONS[conversation]
    found = []
    for number, (asked, answered) in enumerate(exchanges(turns["prompt"], turns[response])):
        before = JOINED_BY if number else ""
        found.append((f"prompt.{conversation}.{number}", asked, before + USER_LABEL))
        found.append((f"{response}.{conversation}.{number}", answered, JOINED_BY + ASSISTANT_LABEL))
    return found


def _pieces(text: str, key: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"{key}: {text!r} does not parse ({error}); write a brace itself twice") from None
    for _, field, spec, conversion in parsed:
        if spec or conversion:
            raise UsageError(f"{key}: the placeholder {{{field}}} takes no format or conversion; name it alone")
    return [(literal, field) for literal, field, _, _ in parsed]


def _check_responses(setting: str | list[str], fields: Sequence[str], key: str) -> None:
    for conversation, response in _CONVERSATIONS.items():
        if response not in fields and conversation not in fields:
            raise UsageError(
                f"{key}: {setting!r} has no {{{response}}} nor {{{conversation}}}; add one where it belongs"
            )


def _known(field: str, before: list[str], key: str, known: Sequence[str]) -> str:
    if field not in known:
        accepted = ", ".join(f"{{{cell}}}" for cell in known)
        raise UsageError(f"{key}: {{{field}}} is not a placeholder; accepted: {accepted}; double a brace itself")
    if field in before:
        raise UsageError(f"{key}: {{{field}}} occurs twice; name each field once")
    return field
