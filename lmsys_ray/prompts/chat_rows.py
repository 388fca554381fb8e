"""Chat messages become token ids of a bounded length, cut within the texts of cells."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from lmsys_ray.checkpoints.chat_templates import DEFAULT
from lmsys_ray.checkpoints.settings import MessageSettings
from lmsys_ray.checkpoints.sources import read_templates, read_tokenizer
from lmsys_ray.data.turns import ASSISTANT, SYSTEM, USER
from lmsys_ray.errors import UnscorableError, UsageError
from lmsys_ray.prompts.chat import DATE, ChatTemplate, Message
from lmsys_ray.prompts.kept import Kept
from lmsys_ray.prompts.marks import ChatMessage, Marks, Part
from lmsys_ray.prompts.rows import LEAST_FIELD_TOKENS, cut_rows
from lmsys_ray.prompts.special_tokens import TokenNames, appended_eos, reads_cells_as_text
from lmsys_ray.prompts.template import Filled, Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer
from lmsys_ray.prompts.turns import exchanges


def conversation(prompt: Sequence[str], response: Sequence[str]) -> list[ChatMessage]:
    """Returns the turns of a prompt and of one response to it as messages, which the response ends."""
    messages = []
    for number, (asked, answered) in enumerate(exchanges(prompt, response)):
        messages.append(ChatMessage(USER, [Part(asked, f"prompt.{number}")]))
        messages.append(ChatMessage(ASSISTANT, [Part(answered, f"response.{number}")]))
    return messages


class ChatRows:
    """Renders and tokenizes messages, each row cut to `max_length` tokens with `append_ids` at its end.

    Ids are those of `AutoTokenizer.apply_chat_template`, which adds no special tokens beside the template's. Text and
    tokens of the template, and literal parts of messages, are never cut. `prefix` begins the answer that follows.
    `sample` are messages as they will come, with short texts. Raises `UsageError` for a template, a tokenizer or a
    length that cannot be used.
    """

    def __init__(
        self,
        settings: MessageSettings,
        sample: Sequence[ChatMessage],
        add_generation_prompt: bool = False,
        prefix: str = "",
        append_ids: Sequence[int] = (),
    ) -> None:
        self.spaces_taken = 0
        """How many of the spaces in which rows end are left out, since they belong to the token that follows."""
        self._prefix = prefix
        self._settings = settings
        self._generates = add_generation_prompt
        read = read_tokenizer(settings.model, settings.adapter, settings.append_eos)
        self._eos = appended_eos(read, settings)
        self._append = np.array(append_ids, np.int32)
        self.chat = ChatTemplate(*_source(settings), names=read.names)
        self._marks = Marks(self.chat.sought())
        literals = self._checked(sample).template
        self.tokenizer = BoundedTokenizer(read.tokenizer)
        probe = self.chat.probe(settings.system, add_generation_prompt)
        self._names: TokenNames | None = None
        if reads_cells_as_text(read, settings, auto="text"):
            expected = self.tokenizer.ids(probe)
            _mark_control_tokens(read.tokenizer, self.chat.literals())
            self._names = TokenNames(self.tokenizer)
            self._names.check(self._names.text(probe), expected.tolist(), "chat template")
        self.room = settings.max_length - len(self._append) - (self._eos is not None)
        self._check_room(literals)
        bos = read.tokenizer.token_to_id(read.names.get("bos_token", ""))
        self.facts: dict[str, Any] = {
            "chat_template": hashlib.sha256(probe.encode()).hexdigest()[:16],
            "begins_with_bos": bos is not None and self.ids(probe)[:1].tolist() == [bos],
        }
        """What the manifest records: a digest of a fixed conversation as the template writes it, and whether rows begin
        with BOS."""

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        if not self.chat.asks_for_date:
            return []
        return [
            f"the chat template of {self.chat.place} writes today's date; {DATE:%d %b %Y} stands for it on every day, "
            "so that scores stay the same"
        ]

    def encode(self, rows: Sequence[Sequence[ChatMessage]]) -> tuple[list[np.ndarray], list[Kept]]:
        """Returns the token ids of each row of messages, int32, and what is kept of its cells.

        Raises `UnscorableError` for messages that the chat template refuses, that have too many turns for their length,
        or whose texts it rewrites so that they can't be cut or kept apart from its own tokens.
        """
        ids, kept = cut_rows(self.tokenizer, [self._named(self._filled(messages)) for messages in rows], self.room)
        return [np.concatenate([row, self._end(row)]) for row in ids], kept

    def ids(self, text: str) -> np.ndarray:
        """Returns the ids of a text in which all special tokens count, int32."""
        return self.tokenizer.ids(text if self._names is None else self._names.text(text))

    def render(self, messages: Sequence[Message]) -> str:
        """Returns the text of a row, with the system message and the prefix."""
        context = self.context(messages)
        return context[: len(context) - self.spaces_taken]

    def context(self, messages: Sequence[Message]) -> str:
        """Returns the same with all spaces at its end."""
        system = [] if self._settings.system is None else [(SYSTEM, self._settings.system)]
        return self.chat.render([*system, *messages], self._generates) + self._prefix

    def _filled(self, messages: Sequence[ChatMessage]) -> Filled:
        found = self._marks.taken_apart(messages, self.render)
        if found is not None:
            return found
        texts = [part.text for message in messages for part in message.parts if part.cell is not None]
        token = next(filter(None, map(self._names.found_in, texts)), None) if self._names else None
        rewrites = f"the chat template of {self.chat.place} rewrites a text of the row"
        if token is not None:
            raise UnscorableError(
                f"{rewrites}, so that {token} in it can't be read as text; set special_tokens to parse"
            )
        whole = Filled(Template((self.render([message.plain for message in messages]),), ()), {})
        [row] = self.tokenizer.first_tokens([self._named(whole).text], self.room + 1)
        if len(row) > self.room:
            raise UnscorableError(f"{rewrites}, so that it can't be cut to max_length; raise max_length")
        return whole

    def _named(self, filled: Filled) -> Filled:
        return filled if self._names is None else Filled(self._names.template(filled.template), filled.texts)

    def _end(self, row: np.ndarray) -> np.ndarray:
        eos = [] if self._eos is None or row[-1:].tolist() == [self._eos] else [self._eos]
        return np.concatenate([np.array(eos, np.int32), self._append])

    def _checked(self, sample: Sequence[ChatMessage]) -> Filled:
        """Returns the sample filled; raises `UsageError` where the template does not write all of it as it is."""
        the = f"the chat template of {self.chat.place}"
        messages, system = [message.plain for message in sample], self._settings.system
        try:
            without = self.chat.render(messages, self._generates)
        except UnscorableError as error:
            raise UsageError(f"chat_template: {error}; set chat_template to one that takes them") from None
        if system is not None:
            mend = "set system to null, or chat_template to one that writes it"
            try:
                text = self.chat.render([(SYSTEM, system), *messages], self._generates)
            except UnscorableError as error:
                raise UsageError(f"system: {error}; {mend}") from None
            if text == without or system.strip() not in text:
                raise UsageError(f"system: {the} leaves the system message out; {mend}")
        found = self._marks.taken_apart(sample, self.render)
        cells = {part.cell: part.cell.partition(".")[0] for each in sample for part in each.parts if part.cell}
        shown = {name.rpartition(".")[0] for name in found.texts} if found else set()
        if left_out := [cell for name, cell in cells.items() if name not in shown]:
            raise UsageError(
                f"chat_template: {the} leaves out or rewrites the text of the {left_out[0]}; set chat_template to one "
                "that writes it as it is"
            )
        assert found
        return found

    def _check_room(self, template: Template) -> None:
        literals = sum(len(self.ids(literal)) for literal in template.literals if literal)
        least = self._settings.max_length - self.room + literals + LEAST_FIELD_TOKENS * len(template.fields)
        if self._settings.max_length < least:
            raise UsageError(
                f"max_length: {self._settings.max_length} leaves too little beside the {literals} tokens of the chat "
                f"template; give at least {least}"
            )


def _source(settings: MessageSettings) -> tuple[str, str]:
    """Returns the Jinja text of the chat template, and whose it is."""
    given = settings.chat_template
    if given is not None and "{" in given:
        return given, "the settings"
    templates, place = read_templates(settings.model, settings.adapter)
    owner = f"the {place.replace(': ', ' ', 1)}"
    name = given or DEFAULT
    if name in templates:
        return templates[name], owner
    brings = f"{owner} brings {', '.join(templates) or 'none'}"
    if given is not None:
        raise UsageError(f"chat_template: {given!r} is neither a Jinja text nor the name of one; {brings}")
    if templates:
        raise UsageError(f"chat_template: {brings}; set chat_template to one of them")
    raise UsageError(f"chat_template: {brings}; set chat_template to the Jinja text that its model was trained with")


def _mark_control_tokens(tokenizer: Tokenizer, literals: Sequence[str]) -> None:
    """Makes special what the template writes of the added tokens, such as `<|im_start|>` where it is not declared so.

    White space stays as it is: templates and texts have it alike.
    """
    plain = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    written = [token for token in plain if token.content.strip() and any(token.content in text for text in literals)]
    tokenizer.add_special_tokens([_special(token) for token in written])


def _special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )
