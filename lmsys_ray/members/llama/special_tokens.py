"""Special tokens that stand in a row: those of the template are meant, those of a cell were typed by somebody.

A tokenizer reads all special tokens of a text or none. Here it reads none, and the template's stand in the text under
names that no cell can hold, each a token of its own. Cells and template are still tokenized as one text.
"""

from __future__ import annotations

import json
import re
import secrets

import numpy as np
from tokenizers import AddedToken, Tokenizer, models

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.sources import read_scoring
from lmsys_ray.members.llama.template import Template
from lmsys_ray.members.llama.tokenizer import BoundedTokenizer
from lmsys_ray.members.llama.tokenizer_files import ReadTokenizer, special_ids


def row_ends(read: ReadTokenizer, settings: LlamaSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids before and behind each row, int32: the tokenizer's own, and its EOS where that is to be appended.

    Raises `UsageError` where there is no EOS to append.
    """
    before, after = special_ids(read.tokenizer)
    if not settings.append_eos:
        return before, after
    if read.eos_id is None:
        raise UsageError(
            f"append_eos: {read.place} names no eos_token that its tokenizer has; "
            "name it in tokenizer_config.json, or set append_eos to false"
        )
    return before, after if read.eos_id in after else np.append(after, np.int32(read.eos_id))


def reads_cells_as_text(read: ReadTokenizer, settings: LlamaSettings) -> bool:
    """Returns whether special tokens of cells are to be told from those of the template.

    They need not where `split_special_tokens` makes the tokenizer read all of them as text. `auto` means what the
    adapter's note says, else `parse`. Raises `UsageError` where the setting contradicts the tokenizer, or the note is
    damaged.
    """
    mode: str = settings.special_tokens
    if mode == "auto":
        noted = {} if settings.adapter is None else read_scoring(settings.adapter)
        mode = noted.get("special_tokens", "parse")
        if mode not in ("text", "parse"):
            raise UsageError(f"adapter: scoring.json of {settings.adapter} says special_tokens = {mode!r}; restore it")
    if read.splits_special and settings.special_tokens == "parse":
        raise UsageError(
            f"special_tokens: parse contradicts split_special_tokens = true in tokenizer_config.json ({read.place}); "
            "set special_tokens to text"
        )
    return mode == "text" and not read.splits_special


def check_not_doubled(tokenizer: Tokenizer, template: Template, before: np.ndarray, after: np.ndarray) -> None:
    """Demands that a template neither begins nor ends in the token that is put before or after each row anyway.

    Raises `UsageError` where it does.
    """
    first = tokenizer.encode(template.literals[0], add_special_tokens=False).ids[:1]
    last = tokenizer.encode(template.literals[-1], add_special_tokens=False).ids[-1:]
    if first and first == list(before[-1:]):
        token = tokenizer.id_to_token(first[0])
        raise UsageError(f"template: it begins with {token}, which stands before each row anyway; leave it out there")
    if last and last == list(after[:1]):
        token = tokenizer.id_to_token(last[0])
        raise UsageError(f"template: it ends in {token}, which stands behind each row anyway; leave it out there")


def cells_as_text(bounded: BoundedTokenizer, template: Template) -> Template:
    """Makes `bounded` read special tokens as text, and returns `template` with its own under names that it parses.

    Raises `UsageError` where the template's special tokens would be read otherwise than by themselves.
    """
    tokenizer = bounded.tokenizer
    expected = tokenizer.encode(template.render(_PLAIN), add_special_tokens=False).ids
    added = tokenizer.get_added_tokens_decoder()
    special = {token.content: (id_, token) for id_, token in added.items() if token.special}
    longest_first = sorted(special, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) if special else r"(?!)")
    used = {token for literal in template.literals for token in pattern.findall(literal)}
    names = {token: f"\ufdd0{secrets.token_hex(8)}\ufdd1" for token in sorted(used)}
    literals = tuple(pattern.sub(lambda found: names[found[0]], literal) for literal in template.literals)
    named = Template(literals, template.fields)

    tokenizer.encode_special_tokens = True
    tokenizer.add_tokens([_renamed(special[token][1], name) for token, name in names.items()])
    originals = np.arange(max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1, dtype=np.int32)
    unknown = _unknown_id(tokenizer)
    originals[[id_ for id_, _ in special.values() if id_ != unknown]] = -1
    for token, name in names.items():
        originals[tokenizer.token_to_id(name)] = special[token][0]
    bounded.originals = originals
    if list(bounded.ids(named.render(_PLAIN))) != expected:
        raise UsageError(
            f"special_tokens: this tokenizer reads {', '.join(names)} of the template otherwise beside cells that are "
            "read as text; set special_tokens to parse, or leave them out of the template"
        )
    return named


_PLAIN = {"prompt": "a", "response_a": "a", "response_b": "a"}


def _renamed(token: AddedToken, name: str) -> AddedToken:
    return AddedToken(
        name, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=False
    )


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """Returns the id that characters outside the vocabulary get, which is special in name only."""
    if isinstance(tokenizer.model, models.Unigram):
        unknown: int | None = json.loads(tokenizer.to_str())["model"]["unk_id"]
        return unknown
    token: str | None = tokenizer.model.unk_token
    return None if token is None else tokenizer.token_to_id(token)
