"""A model's chat template: messages become the text that the model was trained to read.

It is compiled and rendered by transformers' own helper, in Jinja's sandbox, as `apply_chat_template` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes

from lmsys_ray.data.turns import ASSISTANT, SYSTEM, USER
from lmsys_ray.errors import UnscorableError, UsageError, first_line

Message = tuple[str, str]
"""The role and the content of a message."""

DATE = datetime(2024, 7, 26)
"""The date that templates get for today's: that which Llama's have where they get none."""

_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a template may raise: by itself, or from a message that it does not expect."""

_SEARCHING = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "replace"}
"""Methods by which a template looks for a text within a message."""


class ChatTemplate:
    """Renders messages with the Jinja text `source`; `place` says whose it is, such as `the model NAME`.

    `names` are the special tokens that it may name, such as `bos_token`. Raises `UsageError` for a text that is not
    Jinja.
    """

    def __init__(self, source: str, place: str, names: Mapping[str, str]) -> None:
        # Imported here because it takes half a second.
        from transformers.utils.chat_template_utils import _compile_jinja_template

        self.place = place
        self.asks_for_date = False
        """Whether it has asked for today's date in what was rendered so far."""
        self._names = dict(names)
        try:
            self._compiled = _compile_jinja_template(source)
            self._tree = self._compiled.environment.parse(source)
        except TemplateError as error:
            raise UsageError(
                f"chat_template: that of {place} is not Jinja ({first_line(error, 160)}); mend it"
            ) from None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """Returns the text of messages, without any token that the tokenizer itself would add.

        A template that writes today's date gets `DATE`, so that a run that resumes tomorrow reads the same. Raises
        `UnscorableError` where the template refuses them.
        """
        try:
            text: str = self._compiled.render(
                messages=[{"role": role, "content": content} for role, content in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                strftime_now=self._strftime,
                **self._names,
            )
        except _ERRORS as error:
            raise UnscorableError(
                f"the chat template of {self.place} refuses {_described(messages)} ({first_line(error, 160)})"
            ) from None
        return text

    def probe(self, system: str | None, add_generation_prompt: bool) -> str:
        """Returns a fixed conversation, of the most exchanges up to two that it takes."""
        first = [(SYSTEM, system)] if system is not None else []
        asked, answered = (USER, "Why is the sky blue?"), (ASSISTANT, "Air scatters blue light.")
        for messages in ([asked, answered, asked, answered], [asked, answered]):
            try:
                return self.render([*first, *messages], add_generation_prompt)
            except UnscorableError:
                continue
        return self.render([*first, asked], add_generation_prompt)

    def literals(self) -> list[str]:
        """Returns the texts that it holds itself, among them those that it writes."""
        return [
            *(node.data for node in self._tree.find_all(nodes.TemplateData)),
            *(node.value for node in self._tree.find_all(nodes.Const) if isinstance(node.value, str)),
        ]

    def sought(self) -> list[str]:
        """Returns the texts that it looks for within messages, such as `</think>`, the longest first."""
        found = {text for text in _sought(self._tree) if text.strip()}
        return sorted(found, key=lambda text: (-len(text), text))

    def _strftime(self, format: str) -> str:
        self.asks_for_date = True
        return DATE.strftime(format)


def _sought(tree: nodes.Template) -> Iterator[str]:
    def texts(expressions: Sequence[Any]) -> Iterator[str]:
        yield from (node.value for node in expressions if isinstance(node, nodes.Const) and isinstance(node.value, str))

    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _SEARCHING:
            yield from texts(call.args)
    for compare in tree.find_all(nodes.Compare):
        if any(operand.op in ("in", "notin") for operand in compare.ops):
            yield from texts([compare.expr])


def _described(messages: Sequence[Message]) -> str:
    exchanges = sum(role == USER for role, _ in messages)
    many = "one exchange" if exchanges == 1 else f"{exchanges} exchanges"
    return f"a system message and {many}" if any(role == SYSTEM for role, _ in messages) else many
