"""Special tokens in a row: those of the template are intended, those in a cell were typed by somebody.

A tokenizer parses either all special tokens of a text or none. Here it parses none, and those of the template stand in
the text under names that no cell can contain, each a token of its own. Cells and template are tokenized as one text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence

import numpy as np
from tokenizers import AddedToken, Tokenizer, models

from lmsys_ray.checkpoints.settings import TokenizerSettings
from lmsys_ray.checkpoints.sources import SCORING, read_scoring, trained_place
from lmsys_ray.checkpoints.tokenizer_files import LoadedTokenizer, special_ids
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.template import Template
from lmsys_ray.prompts.tokenizer import BoundedTokenizer


def row_ends(read: LoadedTokenizer, settings: TokenizerSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids before and after each row, int32: the tokenizer's own and, where the settings append it, its EOS.

    Raises `UsageError` where there is no EOS to append.
    """
    before, after = special_ids(read.tokenizer)
    eos = appended_eos(read, settings)
    return before, after if eos is None or eos in after else np.append(after, np.int32(eos))


def appended_eos(read: LoadedTokenizer, settings: TokenizerSettings) -> int | None:
    """Returns the id of EOS where the settings append it; raises `UsageError` where there is none."""
    if settings.append_eos and read.eos_id is None:
        raise UsageError(
            f"append_eos: {read.place} names no eos_token that its tokenizer has; "
            "name it in tokenizer_config.json, or set append_eos to false"
        )
    return read.eos_id if settings.append_eos else None


def reads_cells_as_text(read: LoadedTokenizer, settings: TokenizerSettings, auto: str = "parse") -> bool:
    """Returns whether special tokens in cells must be read as text, unlike those of the template.

    They need no treatment where `split_special_tokens` makes the tokenizer read all of them as text. The setting `auto`
    follows the note of the adapter or the model, else `auto`. Raises `UsageError` where the setting contradicts the
    tokenizer, or the note is damaged.
    """
    mode: str = settings.special_tokens
    if mode == "auto":
        mode = read_scoring(settings.model, settings.adapter).get("special_tokens", auto)
        if mode not in ("text", "parse"):
            place = trained_place(settings.model, settings.adapter, f"{SCORING} of ")
            raise UsageError(f"{place} says special_tokens = {mode!r}; restore it")
    if read.splits_special and settings.special_tokens == "parse":
        raise UsageError(
            f"special_tokens: parse contradicts split_special_tokens = true in tokenizer_config.json ({read.place}); "
            "set special_tokens to text"
        )
    return mode == "text" and not read.splits_special


def check_not_doubled(
    tokenizer: Tokenizer, templates: Sequence[Template], before: np.ndarray, after: np.ndarray
) -> None:
    """Raises `UsageError` where the texts of a row begin or end with the token that it begins or ends with anyway."""
    first = tokenizer.encode(templates[0].literals[0], add_special_tokens=False).ids[:1]
    last = tokenizer.encode(templates[-1].literals[-1], add_special_tokens=False).ids[-1:]
    if first and first == list(before[-1:]):
        token = tokenizer.id_to_token(first[0])
        raise UsageError(f"template: it begins with {token}, which is added before each row anyway; leave it out")
    if last and last == list(after[:1]):
        token = tokenizer.id_to_token(last[0])
        raise UsageError(f"template: it ends in {token}, which is added after each row anyway; leave it out")


def cells_as_text(bounded: BoundedTokenizer, templates: Sequence[Template]) -> list[Template]:
    """Makes `bounded` read special tokens as text; returns `templates` with their own under names that it parses.

    Raises `UsageError` where the templates' special tokens would be tokenized differently than before.
    """
    plain = [dict.fromkeys(template.fields, "a") for template in templates]
    texts = [template.render(cells) for template, cells in zip(templates, plain, strict=True)]
    expected = [bounded.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    names = TokenNames(bounded)
    named = [names.template(template) for template in templates]
    for template, cells, ids in zip(named, plain, expected, strict=True):
        names.check(template.render(cells), ids, "template")
    return named


class TokenNames:
    """Names for the special tokens of templates that no cell can contain; `bounded` then reads all others as text.

    A token gets its name when a template first has it.
    """

    def __init__(self, bounded: BoundedTokenizer) -> None:
        self._bounded = bounded
        added = bounded.tokenizer.get_added_tokens_decoder()
        self._special = {token.content: (id_, token) for id_, token in added.items() if token.special}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) if longest_first else r"(?!)")
        self._names: dict[str, str] = {}
        bounded.tokenizer.encode_special_tokens = True
        originals = np.arange(max(bounded.tokenizer.get_vocab(with_added_tokens=True).values()) + 1, dtype=np.int32)
        unknown = _unknown_id(bounded.tokenizer)
        originals[[id_ for id_, _ in self._special.values() if id_ != unknown]] = -1
        bounded.originals = originals

    def found_in(self, text: str) -> str | None:
        """Returns the first special token in a text; none where there is none."""
        found = self._pattern.search(text)
        return found[0] if found else None

    def template(self, template: Template) -> Template:
        """Returns a template with its special tokens under their names."""
        return Template(tuple(map(self.text, template.literals)), template.fields)

    def text(self, literal: str) -> str:
        """Returns a text of a template with its special tokens under their names."""
        for token in sorted(set(self._pattern.findall(literal)) - self._names.keys()):
            self._add(token, f"\ufdd0{secrets.token_hex(8)}\ufdd1")
        return self._pattern.sub(lambda found: self._names[found[0]], literal)

    def check(self, named: str, expected: Sequence[int], key: str) -> None:
        """Raises `UsageError`, about the setting `key`, where a text with names has other ids than expected."""
        if list(self._bounded.ids(named)) != list(expected):
            raise UsageError(
                f"special_tokens: this tokenizer reads {', '.join(self._names)} of the {key} otherwise beside cells "
                f"that are read as text; set special_tokens to parse, or leave them out of the {key}"
            )

    def _add(self, token: str, name: str) -> None:
        id_, added = self._special[token]
        self._bounded.tokenizer.add_tokens([_renamed(added, name)])
        self._names[token] = name
        new, originals = self._bounded.tokenizer.token_to_id(name), self._bounded.originals
        assert new is not None
        assert originals is not None
        self._bounded.originals = np.append(originals, np.arange(len(originals), new + 1, dtype=np.int32))
        self._bounded.originals[new] = id_


def _renamed(token: AddedToken, name: str) -> AddedToken:
    return AddedToken(
        name, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=False
    )


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """Returns the id of characters outside the vocabulary, which is special in name only."""
    if isinstance(tokenizer.model, models.Unigram):
        unknown: int | None = json.loads(tokenizer.to_str())["model"]["unk_id"]
        return unknown
    token: str | None = tokenizer.model.unk_token
    return None if token is None else tokenizer.token_to_id(token)
