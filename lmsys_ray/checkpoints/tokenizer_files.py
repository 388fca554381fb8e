"""A tokenizer as its files describe it: tokenizer.json, and what tokenizer_config.json adds.

tokenizer.json gives the ids of a text. Of tokenizer_config.json, `split_special_tokens` and the names of special tokens
are followed. Whether `add_bos_token`, `add_eos_token` or `add_prefix_space` apply where tokenizer.json differs depends
on the release of transformers used in training, so that such files are refused. Measurements: docs/lab/tokenizer.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from lmsys_ray.checkpoints.json_files import read_mapping
from lmsys_ray.errors import UsageError, first_line

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_SPACES = ("Ġ", "▁")
"""How byte-level BPE and SentencePiece spell a space at the beginning of a token."""

_SAMPLES = ["", "a", " The sky,\n\n1 + 2 = 3? \t\U0001f642 \u4e2d\u6587 \u00e9\u0301 \0 <s>"]
"""Texts that every tokenizer must read."""

_TAKES_A_SPACE = ("LlamaTokenizer", "LlamaTokenizerFast")
"""Classes that transformers 5 rebuilds, with a space before a text by default."""


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer, and what its files say about its special tokens."""

    tokenizer: Tokenizer
    place: str
    """Where it comes from, as the beginning of a sentence: `model: NAME` or `adapter: NAME`."""
    pad_id: int | None
    eos_id: int | None
    splits_special: bool
    """Whether it reads special tokens in a text as plain text."""
    names: Mapping[str, str]
    """The texts of the special tokens that have names, such as `bos_token`."""


def read_tokenizer_file(file: Path, place: str) -> Tokenizer:
    """Reads a tokenizer.json, without padding or truncation; raises `UsageError` where it is damaged."""
    read_mapping(file, f"{place}: {file.name}", "restore it")
    with _tokenizing(f"{place}: {file.name}"):
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_config(directory: Path, place: str) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json and special_tokens_map.json, without null values.

    As in transformers, the latter wins where the former lacks `added_tokens_decoder`, which older releases did not
    write. Raises `UsageError` where one is damaged.
    """
    config, names = (
        {
            key: value
            for key, value in read_mapping(file, f"{place}: {file.name}", "restore it").items()
            if value is not None
        }
        if (file := directory / name).is_file()
        else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    return names | config if "added_tokens_decoder" in config else config | names


def special_token_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a tokenizer_config.json that names special tokens."""
    return {key: config[key] for key in _NAMES if key in config}


def configure(tokenizer: Tokenizer, config: Mapping[str, Any], place: str, append_eos: bool = False) -> LoadedTokenizer:
    """Applies `config` to `tokenizer`, in place.

    Raises `UsageError` where they contradict each other, unless `append_eos` settles it, and for a pad token that the
    tokenizer does not have.
    """
    with _tokenizing(f"{place}: its tokenizer.json"):
        _check_added(tokenizer, config, place, append_eos)
        _check_prefix_space(tokenizer, config, place)
        tokenizer.encode_batch(_SAMPLES, add_special_tokens=True)
    _mark_special(tokenizer, config, place)
    splits_special = _flag(config, "split_special_tokens", place) is True
    tokenizer.encode_special_tokens = splits_special
    pad = _name(config, "pad_token", place)
    pad_id = None if pad is None else tokenizer.token_to_id(pad)
    if pad is not None and pad_id is None:
        raise UsageError(f"{place}: its pad_token {pad!r} is not a token of its tokenizer; name one that is")
    eos = _name(config, "eos_token", place)
    eos_id = None if eos is None else tokenizer.token_to_id(eos)
    return LoadedTokenizer(tokenizer, place, pad_id, eos_id, splits_special, _all_names(config, place))


@contextmanager
def _tokenizing(what: str) -> Iterator[None]:
    """Turns the errors and the Rust panics of the library tokenizers into a `UsageError`."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"{what} is not a tokenizer ({first_line(error, 160)}); restore it") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UsageError(f"{what} is not a tokenizer ({first_line(error, 160)}); restore it") from None


def special_ids(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids that a tokenizer adds before and after a text, such as Llama's BOS, int32."""
    text = "a"
    plain = list(tokenizer.encode(text, add_special_tokens=False).ids)
    whole = list(tokenizer.encode(text, add_special_tokens=True).ids)
    starts = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    if (start := next(starts, None)) is None:
        raise ValueError("its post_processor drops or changes what a text holds")
    before, after = whole[:start], whole[start + len(plain) :]
    return np.array(before, np.int32), np.array(after, np.int32)


def check_same_ids(own: Tokenizer, base: Tokenizer, adapter: str, model: str) -> None:
    """Checks that an adapter's tokenizer gives the tokens of its base the same ids, apart from added ones."""
    sides = []
    for tokenizer in (own, base):
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        sides.append((tokenizer.get_vocab(with_added_tokens=True), added))
    (ours, our_added), (theirs, their_added) = sides
    if ours == theirs:
        return
    differing = (token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    wrong = sorted(
        token
        for token in differing
        if (token in ours and token not in our_added) or (token in theirs and token not in their_added)
    )
    if wrong:
        raise UsageError(
            f"adapter: the tokenizer beside {adapter} gives {wrong[0]!r} the id {ours.get(wrong[0])} where that of "
            f"{model} gives {theirs.get(wrong[0])} ({len(wrong)} tokens differ); name the model that it was trained on"
        )


def _check_added(tokenizer: Tokenizer, config: Mapping[str, Any], place: str, append_eos: bool) -> None:
    before, after = special_ids(tokenizer)
    for key, added, where in (("add_bos_token", before, "before"), ("add_eos_token", after, "after")):
        said = _flag(config, key, place)
        if said in (None, len(added) > 0):
            continue
        if key == "add_eos_token" and said and append_eos:
            continue
        mend = "append_eos to true if training saw one, or " if key == "add_eos_token" and said else ""
        does = "adds tokens" if len(added) else "adds none"
        raise UsageError(
            f"{place}: tokenizer_config.json says {key} = {json.dumps(said)} but tokenizer.json {does} {where} a text, "
            f"and which of them training followed is not known; set {mend}{key} there to {json.dumps(not said)} "
            "if tokenizer.json is right"
        )


def _check_prefix_space(tokenizer: Tokenizer, config: Mapping[str, Any], place: str) -> None:
    said = _flag(config, "add_prefix_space", place)
    says = f"add_prefix_space = {json.dumps(said)}"
    if said is None and not _is_byte_level(tokenizer) and config.get("tokenizer_class") in _TAKES_A_SPACE:
        said, says = True, f"tokenizer_class = {config['tokenizer_class']}, which adds one,"
    tokens = tokenizer.encode("a", add_special_tokens=False).tokens
    does = bool(tokens) and tokens[0].startswith(_SPACES)
    if said not in (None, does):
        raise UsageError(
            f"{place}: tokenizer_config.json says {says} but tokenizer.json adds {'a' if does else 'no'} space "
            "before a text, and which of them training followed is not known; "
            f"set add_prefix_space there to {json.dumps(does)} if tokenizer.json is right"
        )


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    return "ByteLevel(" in str(tokenizer.pre_tokenizer)


def _mark_special(tokenizer: Tokenizer, config: Mapping[str, Any], place: str) -> None:
    """Marks the tokens of the vocabulary that the config calls special, as transformers does."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    named = {_name(config, key, place) for key in _NAMES}
    for key in ("extra_special_tokens", "additional_special_tokens"):
        more = config.get(key, [])
        listed = list(more.values()) if isinstance(more, dict) else more
        if not isinstance(listed, list):
            raise UsageError(f"{place}: {key} of its tokenizer is {more!r}; write a list of tokens")
        named |= {_name({key: token}, key, place) for token in listed}
    special = [name for name in named - known if name is not None and tokenizer.token_to_id(name) is not None]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in sorted(special)])


def _all_names(config: Mapping[str, Any], place: str) -> dict[str, str]:
    """Returns the special tokens by the names that a chat template may use, those of the model's own kind too."""
    extra = config.get("extra_special_tokens")
    own = extra if isinstance(extra, dict) else {}
    named = {key: config[key] for key in config if key.endswith("_token") and isinstance(config[key], str | dict)} | own
    texts = {key: _name(named, key, place) for key in named}
    return {key: text for key, text in texts.items() if text is not None}


def _flag(config: Mapping[str, Any], key: str, place: str) -> bool | None:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{place}: {key} of tokenizer_config.json is {value!r}; write true or false")
    return value


def _name(config: Mapping[str, Any], key: str, place: str) -> str | None:
    value = config.get(key)
    name = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(name, str):
        raise UsageError(f"{place}: {key} of its tokenizer is {value!r}; write the token's text")
    return name
