"""Texts to token ids, without reading more of a huge text than its maximum length allows.

A text is shortened before it is tokenized, at a boundary where that does not change the tokens that are kept: between a
character and a space. The pre-tokenizers of GPT-2, Llama 3, Qwen and others start a new piece there, and SentencePiece
vocabularies have no token across it. Where a vocabulary has one (SuperBPE), texts are tokenized in full.
"""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers

from lmsys_ray.errors import UnscorableError

# SentencePiece writes a space as ▁.
BOUNDARY = re.compile(r"(?<=[^\s▁])(?= )")
NO_BOUNDARY = re.compile(r"(?!)")

# An ASCII character before a space, as written by byte-level BPE (Ġ) or SentencePiece (▁).
_TOKEN_ACROSS_WORDS = re.compile("[!-~][ Ġ▁]")

CHARACTERS_PER_TOKEN = 8
"""How much of a text is tried first; most languages and code have 2 to 5 characters per token."""

_CHARACTERS_COVERED = 5
"""How many characters are tried first for each token, where it is looked for how many tokens cover."""

_PROBE = "Why, ünï 中文🙂  x\n\ty'll 12"


class BoundedTokenizer:
    """Tokenizes texts up to a number of tokens; special tokens are left to the caller.

    Batches run on all cores, outside the interpreter's lock; TOKENIZERS_PARALLELISM=false stops that. After
    `special_tokens.cells_as_text`, a text that spells a special token of the tokenizer's own vocabulary raises
    `UnscorableError`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        across_words = any(map(_TOKEN_ACROSS_WORDS.search, tokenizer.get_vocab(with_added_tokens=True)))
        self.boundary = NO_BOUNDARY if across_words else BOUNDARY
        self._keeps_text = tokenizer.normalizer is None
        self.originals: np.ndarray | None = None
        """The id to return for each id, or -1 where it must not occur; none: ids are returned unchanged."""

    def ids(self, text: str) -> np.ndarray:
        """Returns all token ids of one text, int32 [tokens]."""
        return self._ids(self.tokenizer.encode(text, add_special_tokens=False))

    def first_tokens(self, texts: Sequence[str], count: int) -> list[np.ndarray]:
        """Returns the first `count` token ids of each text, or all if there are fewer."""
        found: list[np.ndarray] = [np.empty(0, np.int32)] * len(texts)
        pending, characters = list(range(len(texts))), count * CHARACTERS_PER_TOKEN
        while pending:
            heads = [texts[i][: self.head(texts[i], characters)] for i in pending]
            encodings = self.tokenizer.encode_batch_fast(heads, add_special_tokens=False)
            too_short = []
            for i, head, encoding in zip(pending, heads, encodings, strict=True):
                if len(encoding) < count and len(head) < len(texts[i]):
                    too_short.append(i)
                else:
                    found[i] = self._ids(encoding)[:count]
            pending, characters = too_short, characters * 2
        return found

    @cached_property
    def _byte_counts(self) -> np.ndarray | None:
        return _byte_counts(self.tokenizer)

    def characters(self, text: str, ids: np.ndarray) -> int:
        """Returns how many characters of `text` its first tokens, `ids`, cover."""
        counts = None if self.originals is not None else self._byte_counts
        if counts is not None and (self._keeps_text or text.isascii()):
            covered = int(counts[ids].sum())
            return len(text[:covered].encode()[:covered].decode(errors="ignore"))
        characters = len(ids) * _CHARACTERS_COVERED
        while True:
            head = self.head(text, characters)
            [(found, offsets)] = self.encode([text[:head]])
            if len(found) >= len(ids) or head == len(text):
                return int(offsets[len(ids) - 1, 1]) if len(ids) else 0
            characters *= 2

    def shorten(self, text: str, count: int) -> str:
        """Drops the middle of `text` without changing its first and last `count` tokens.

        Where anything is dropped, the result has at least `count` tokens from each end.
        """
        characters = count * CHARACTERS_PER_TOKEN
        while (head := self.head(text, characters)) < (tail := self.tail(text, characters)):
            ends = self.tokenizer.encode_batch_fast([text[:head], text[tail:]], add_special_tokens=False)
            if all(len(end) >= count for end in ends):
                return text[:head] + text[tail:]
            characters *= 2
        return text

    def head(self, text: str, characters: int) -> int:
        """Returns the first boundary at or after `characters`, or the end of the text."""
        boundary = self.boundary.search(text, characters) if len(text) > characters else None
        return boundary.start() if boundary else len(text)

    def tail(self, text: str, characters: int) -> int:
        """Returns the first boundary in the last `characters`; 0 if there is none or the text is not longer."""
        boundary = self.boundary.search(text, len(text) - characters) if len(text) > characters else None
        return boundary.start() if boundary else 0

    def encode(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids [tokens] of each text and the characters at which each token begins and ends [tokens, 2]."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(self._ids(e), np.array(e.offsets, np.int64).reshape(-1, 2)) for e in encodings]

    def _ids(self, encoding: Encoding) -> np.ndarray:
        ids = np.array(encoding.ids, np.int32)
        if self.originals is None:
            return ids
        originals: np.ndarray = self.originals[ids]
        if (originals < 0).any():
            token = self.tokenizer.id_to_token(int(ids[originals < 0][0]))
            raise UnscorableError(
                f"a text spells the special token {token}, which this tokenizer cannot read as text; "
                "set special_tokens to parse, or change the text"
            )
        return originals


def _byte_counts(tokenizer: Tokenizer) -> np.ndarray | None:
    """Returns the bytes of text that each token stands for, int64 [vocabulary]; none where tokens do not tell.

    A byte-level vocabulary writes each byte as one character.
    """
    added = tokenizer.get_added_tokens_decoder()
    if not isinstance(tokenizer.normalizer, normalizers.NFC | None) or any(
        token.lstrip or token.rstrip for token in added.values()
    ):
        return None
    written = "".join(tokenizer.encode(_PROBE, add_special_tokens=False).tokens)
    if len(written) != len(_PROBE.encode()) or not set(written) <= set(pre_tokenizers.ByteLevel.alphabet()):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    counts = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, id_ in vocabulary.items():
        counts[id_] = len(token.encode() if id_ in added else token)
    return counts
