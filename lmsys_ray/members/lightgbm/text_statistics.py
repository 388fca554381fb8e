"""Numbers that describe a text: its size, layout, characters, repetition, and what it shares with another text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence, Sized
from functools import cache
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.members.lightgbm.portable import log1p

Statistics = dict[str, np.ndarray]
"""Float64 [texts] by name."""

# A word, or a character where words are not separated by spaces (Chinese, Japanese, Korean).
_WORD = re.compile(r"[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_CHARACTERS = {
    "newline": "\n",
    "stop": ".。",
    "question": "?？",
    "exclamation": "!！",
    "comma": ",，、",
    "colon": ":：;；",
    "bracket": "()（）[]{}",
    "quote": '"“”«»„',
    "markup": "*#`|_<>\\",
}
_CATEGORIES = (*_CHARACTERS, "space", "digit", "upper", "latin", "cyrillic", "east_asian", "letter", "symbol")
_BEYOND = 0x10000
"""All characters outside the basic plane, mostly emoji, count as symbols."""

# How a line begins. Patterns with ^ cannot be counted in a whole text: after a match, Arrow treats the rest as a new
# text.
_LINES = {
    "bullets": r"^\s*[-*•](?:\s|$)",
    "numbered": r"^\s*\d{1,3}[.)](?:\s|$)",
    "headings": r"^#{1,6}(?:\s|$)",
}
_PATTERNS = {
    "paragraphs": r"\n\s*\n",
    "code": r"```",
    "bold": r"\*\*",
    "ellipses": r"\.\.\.|…",
    "refusals": r"(?i)\bi(?:'m| am) (?:sorry|unable|not able)\b|\bi can(?:no|')t\b|\bas an? (?:ai|language model)\b",
}
_ENDINGS = {
    "ends_whole": r"[.!?。！？…\"”')`\]*>]\s*$",
    "ends_asking": r"[?？]\s*$",
    "ends_open": r"[:,;]\s*$",
}
_WORD_LISTS = {
    "hedges": "maybe perhaps might may could possibly probably think guess seem seems likely depends unsure generally",
    "links": "because therefore however example such addition moreover first second finally overall while although "
    "since",
    "function_words": "the a an and or of to in is are was were be been it its that this for on with as at by from "
    "i you he she they we not but have has had do does can will would there their his her",
}
_LIST_OF = {word: name for name, words in _WORD_LISTS.items() for word in words.split()}


class Numbering(defaultdict[str, int]):
    """Numbers words in the order in which they occur, from 0."""

    def __init__(self) -> None:
        super().__init__(count().__next__)


class Words:
    """The words of texts, as sets and as sets of trigrams. Those with the same numbering can be compared."""

    def __init__(self, texts: Sequence[str], numbering: Numbering) -> None:
        self.lists = [_WORD.findall(text.lower()) for text in texts]
        self.sets = [set(words) for words in self.lists]
        self.trigrams = [_trigrams(words, numbering) for words in self.lists]


def _trigrams(words: list[str], numbering: Numbering) -> set[int]:
    """Returns the trigrams of words, each as one number: 21 bits a word, exact up to two million words."""
    numbers = np.fromiter(map(numbering.__getitem__, words), np.int64, len(words))
    return set(((numbers[:-2] << 42) | (numbers[1:-1] << 21) | numbers[2:]).tolist()) if len(words) > 2 else set()


def statistics(texts: Sequence[str], words: Words) -> Statistics:
    """Returns the statistics of each text by itself; counts as log(1 + count), shares from 0 to 1."""
    array = pa.array(texts, pa.large_string())
    length = _lengths(texts)
    total, distinct, trigrams = _lengths(words.lists), _lengths(words.sets), _lengths(words.trigrams)
    counts = _character_counts(texts, length)
    letters = counts["upper"] + counts["latin"] + counts["cyrillic"] + counts["east_asian"] + counts["letter"]
    sentences = counts["stop"] + counts["question"] + counts["exclamation"]
    counted = {
        "characters": length,
        "words": total,
        "distinct_words": distinct,
        "sentences": sentences,
        **{f"{name}_count": counts[name] for name in (*_CHARACTERS, "digit", "upper")},
        **_line_counts(array),
        **{name: pc.count_substring_regex(array, regex).to_numpy() for name, regex in _PATTERNS.items()},
    }
    result = dict(zip(counted, log1p(np.stack(list(counted.values()))), strict=True))
    result |= {
        "sentence_words": total / np.maximum(sentences, 1),
        "word_length": (letters + counts["digit"]) / np.maximum(total, 1),
        "longest_word": np.array([max(map(len, found), default=0) for found in words.lists], float),
        "distinct_share": distinct / np.maximum(total, 1),
        "repeated_trigrams": 1 - (trigrams + 1) / np.maximum(total - 1, 1),
    }
    result |= {f"{name}_share": counts[name] / np.maximum(length, 1) for name in ("comma", "digit", "space", "symbol")}
    result |= {f"{name}_letters": counts[name] / np.maximum(letters, 1) for name in ("upper", "cyrillic", "east_asian")}
    for name, regex in _ENDINGS.items():
        result[name] = pc.match_substring_regex(array, regex).to_numpy(zero_copy_only=False).astype(float)
    listed = [Counter(map(_LIST_OF.get, found)) for found in words.lists]
    for name in _WORD_LISTS:
        result[name] = np.array([found[name] for found in listed]) / np.maximum(total, 1)
    return result


def shared_with(response: Words, prompt: Words) -> Statistics:
    """Returns which share of the words and trigrams of each response is in its prompt, and the reverse."""
    own, other = _lengths(response.sets), _lengths(prompt.sets)
    both = np.array([len(a & b) for a, b in zip(response.sets, prompt.sets, strict=True)], float)
    copied = np.array([len(a & b) for a, b in zip(response.trigrams, prompt.trigrams, strict=True)], float)
    return {
        "prompt_covered": both / np.maximum(other, 1),
        "prompt_share": both / np.maximum(own, 1),
        "prompt_trigrams": copied / np.maximum(_lengths(response.trigrams), 1),
        "new_words": log1p(own - both),
    }


def similarity(a: Words, b: Words) -> Statistics:
    """Returns the Jaccard similarities of two sides; of two empty texts it is 1."""
    result = {}
    for name, ours, theirs in (("words", a.sets, b.sets), ("trigrams", a.trigrams, b.trigrams)):
        both = np.array([len(x & y) for x, y in zip(ours, theirs, strict=True)], float)
        either = _lengths(ours) + _lengths(theirs) - both
        result[f"same_{name}"] = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return result


def _lengths(items: Sequence[Sized]) -> np.ndarray:
    return np.fromiter(map(len, items), np.float64, len(items))


def _line_counts(texts: pa.LargeStringArray) -> Statistics:
    """Returns how many lines of each text match each of `_LINES`."""
    lines = pc.split_pattern(texts, "\n")
    text = pc.list_parent_indices(lines).to_numpy()
    values = pc.list_flatten(lines)
    hits = {name: pc.match_substring_regex(values, regex) for name, regex in _LINES.items()}
    return {
        name: np.bincount(text[hit.to_numpy(zero_copy_only=False)], minlength=len(texts)).astype(np.float64)
        for name, hit in hits.items()
    }


def _character_counts(texts: Sequence[str], length: np.ndarray) -> Statistics:
    """Returns how many characters of each category a text has."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    category = _category_table()[np.minimum(codes, _BEYOND)]
    cell = np.repeat(np.arange(len(texts)) * len(_CATEGORIES), length.astype(np.int64)) + category
    counts = np.bincount(cell, minlength=len(texts) * len(_CATEGORIES)).reshape(-1, len(_CATEGORIES)).astype(np.float64)
    return dict(zip(_CATEGORIES, counts.T, strict=True))


@cache
def _category_table() -> np.ndarray:
    """Returns the number of the category of each code point, int64 [65537]."""
    named = {character: name for name, characters in _CHARACTERS.items() for character in characters}
    names = [named.get(chr(code)) or _category(chr(code), code) for code in range(_BEYOND)]
    return np.array([_CATEGORIES.index(name) for name in [*names, "symbol"]])


def _category(character: str, code: int) -> str:
    if character.isspace():
        return "space"
    if character.isdigit():
        return "digit"
    if not character.isalpha():
        return "symbol"
    if character.isupper():
        return "upper"
    if code < 0x250:
        return "latin"
    if 0x400 <= code < 0x530:
        return "cyrillic"
    return "east_asian" if 0x3040 <= code < 0xA000 or 0xAC00 <= code < 0xD7B0 else "letter"
