"""Counts the words or character n-grams of texts as scikit-learn's `CountVectorizer` does, but much faster.

Unusual settings use scikit-learn's own analyzer; the common cases (character n-grams, words, and word n-grams by the
default token pattern) are counted in numpy over all texts of a batch at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.sparse import coo_array, csr_array
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray.members.lightgbm.ngrams import ABSENT, NgramTrie

DEFAULT_TOKEN_PATTERN = r"(?u)\b\w\w+\b"

_UNICODE = 0x110000
_SPACE = ord(" ")

Occurrences = Callable[[Sequence[str]], csr_array]


class VectorizerSettings(BaseModel):
    """The settings of a fitted `CountVectorizer` that determine what it counts, under the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    analyzer: Literal["word", "char", "char_wb"]
    ngram_range: Annotated[tuple[int, int], Field(strict=False)]
    lowercase: bool = True
    strip_accents: Literal["ascii", "unicode"] | None = None
    stop_words: list[str] | None = None
    token_pattern: str = DEFAULT_TOKEN_PATTERN
    binary: bool = False
    vocabulary: list[str] = Field(min_length=1, description="the term of each column, in the order of the columns")

    @field_validator("ngram_range")
    @classmethod
    def _ascending(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"two lengths from 1 in ascending order, not {list(value)}")
        return value

    @field_validator("token_pattern")
    @classmethod
    def _one_group_at_most(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"a regular expression ({error})") from None
        if groups > 1:
            raise ValueError("a regular expression with at most one group")
        return value

    @model_validator(mode="after")
    def _distinct_terms(self) -> Self:
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError("a vocabulary that names each term once")
        return self

    @classmethod
    def of(cls, fitted: CountVectorizer) -> VectorizerSettings:
        """Returns the settings of a fitted `CountVectorizer`.

        Raises `ValueError` for one that runs the user's own code, which settings cannot hold, or reads files.
        """
        if type(fitted) is not CountVectorizer:
            raise ValueError(f"it is a {type(fitted).__name__}, only a plain CountVectorizer can be rebuilt exactly")
        for name in ("analyzer", "preprocessor", "tokenizer", "strip_accents"):
            if callable(getattr(fitted, name)):
                raise ValueError(f"its {name} is a function, which cannot be kept as data")
        if fitted.input != "content":
            raise ValueError(f"it reads by input={fitted.input!r}, only input='content' is supported")
        columns: dict[str, int] = getattr(fitted, "vocabulary_", {})
        vocabulary = sorted(columns, key=lambda term: columns[term])
        if [columns[term] for term in vocabulary] != list(range(len(vocabulary))) or not vocabulary:
            raise ValueError("it has no vocabulary with one column for each term; was it fitted?")
        names = ("analyzer", "ngram_range", "lowercase", "strip_accents", "token_pattern", "binary")
        stop_words = fitted.get_stop_words() if fitted.analyzer == "word" else None
        return cls(
            **{name: getattr(fitted, name) for name in names},
            stop_words=sorted(stop_words) if stop_words else None,  # spelt out: the list behind "english" may change
            vocabulary=vocabulary,
        )

    def sklearn(self) -> CountVectorizer:
        """Returns a `CountVectorizer` that counts the same."""
        settings = self.model_dump(exclude={"vocabulary"})
        return CountVectorizer(**settings, vocabulary={term: column for column, term in enumerate(self.vocabulary)})


class Vectorizer:
    """Counts the terms of a vocabulary in texts."""

    def __init__(self, settings: VectorizerSettings, needed: np.ndarray | None = None) -> None:
        """Counts the terms where `needed` bool [columns] is true, by default all; other columns stay empty."""
        self.settings = settings
        self.columns = len(settings.vocabulary)
        self._binary = settings.binary
        needed = np.ones(self.columns, bool) if needed is None else needed
        terms = {settings.vocabulary[column]: int(column) for column in np.flatnonzero(needed)}
        self._occurrences = _occurrences(settings, terms)

    def only(self, needed: np.ndarray) -> Vectorizer:
        """Returns a vectorizer with the same columns that counts only those where `needed` bool [columns] is true."""
        return Vectorizer(self.settings, needed)

    def counts(self, texts: Sequence[str]) -> csr_array:
        """Returns how often each term occurs in each text, int64 [texts, columns]."""
        counts = self._occurrences(texts)
        if self._binary:
            counts.data[:] = 1
        return counts


def _occurrences(settings: VectorizerSettings, terms: dict[str, int]) -> Occurrences:
    if settings.analyzer != "word":
        return _Characters(settings, terms)
    if settings.ngram_range == (1, 1) or settings.token_pattern != DEFAULT_TOKEN_PATTERN:
        return _Analyzed(settings, terms)
    return _WordNgrams(settings, terms)


class _Analyzed:
    """Counts what scikit-learn's own analyzer yields: single words, and word n-grams by a custom pattern."""

    def __init__(self, settings: VectorizerSettings, terms: dict[str, int]) -> None:
        self._analyze = settings.sklearn().build_analyzer()
        self._column = terms.get
        self._width = len(settings.vocabulary)

    def __call__(self, texts: Sequence[str]) -> csr_array:
        found, lengths = _looked_up(map(self._analyze, texts), self._column, -1)
        document = np.repeat(np.arange(len(lengths)), lengths)
        hit = found >= 0
        ones = np.ones(int(hit.sum()), np.int64)
        return coo_array((ones, (document[hit], found[hit])), shape=(len(texts), self._width)).tocsr()


class _WordNgrams:
    """Counts n-grams of words; a word is one symbol. The default pattern never yields a word with a space."""

    def __init__(self, settings: VectorizerSettings, terms: dict[str, int]) -> None:
        shortest, longest = settings.ngram_range
        self._words = settings.model_copy(update={"ngram_range": (1, 1)}).sklearn().build_analyzer()
        self._width = len(settings.vocabulary)
        ngrams = {tuple(term.split(" ")): column for term, column in terms.items()}
        ngrams = {n: column for n, column in ngrams.items() if shortest <= len(n) <= longest and "" not in n}
        self._symbols = {word: number for number, word in enumerate(dict.fromkeys(chain.from_iterable(ngrams)), 1)}
        self._trie = NgramTrie(
            [[self._symbols[word] for word in ngram] for ngram in ngrams], np.fromiter(ngrams.values(), np.int64)
        )

    def __call__(self, texts: Sequence[str]) -> csr_array:
        # An extra word at the end of each document keeps n-grams from crossing into the next.
        documents = ([*self._words(text), ""] for text in texts)
        symbols, lengths = _looked_up(documents, self._symbols.get, ABSENT)
        return self._trie.count(symbols, np.cumsum(lengths) - lengths, self._width)


class _Characters:
    """Counts n-grams of characters; a code point is one symbol.

    White space is treated as in scikit-learn: `char` replaces two or more by one space, `char_wb` counts inside words
    only, each with a space on both sides.
    """

    def __init__(self, settings: VectorizerSettings, terms: dict[str, int]) -> None:
        shortest, longest = settings.ngram_range
        self._preprocess = settings.sklearn().build_preprocessor()
        self._within_words = settings.analyzer == "char_wb"
        self._width = len(settings.vocabulary)
        ngrams = {term: column for term, column in terms.items() if len(term) <= longest}
        # A padded word shorter than the shortest n-gram is counted as a whole.
        ngrams = {
            ngram: column
            for ngram, column in ngrams.items()
            if len(ngram) >= shortest or (self._within_words and ngram[:1] == ngram[-1:] == " " and len(ngram) > 2)
        }
        alphabet = sorted(set(chain.from_iterable(ngrams)))
        self._symbol = np.zeros(_UNICODE, np.int32)
        self._symbol[[ord(character) for character in alphabet]] = np.arange(1, len(alphabet) + 1)
        symbols = {character: number for number, character in enumerate(alphabet, 1)}
        self._trie = NgramTrie(
            [[symbols[character] for character in ngram] for ngram in ngrams], np.fromiter(ngrams.values(), np.int64)
        )

    def __call__(self, texts: Sequence[str]) -> csr_array:
        texts = [self._normalised(text) for text in texts]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        joined = " ".join([*texts, ""])
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        symbols = self._symbol[codes]
        if self._within_words:
            space = codes == _SPACE
            symbols[1:-1][space[:-2] & space[1:-1] & space[2:]] = ABSENT
        ends = np.cumsum(lengths)
        symbols[ends - 1] = ABSENT
        return self._trie.count(symbols, ends - lengths, self._width)

    def _normalised(self, text: str) -> str:
        text = self._preprocess(text)
        if not self._within_words:
            return _WHITE_SPACES.sub(" ", text)
        words = text.split()
        return f" {'   '.join(words)} " if words else ""  # the middle one of three spaces separates two words


_WHITE_SPACES = re.compile(r"\s\s+")


def _looked_up(
    documents: Iterable[Sequence[str]], number: Callable[[str, int], int], missing: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of each token, int64 [tokens], and how many each document has, int64 [documents]."""
    numbers = [np.fromiter(map(number, tokens, repeat(missing)), np.int64, len(tokens)) for tokens in documents]
    lengths = np.fromiter(map(len, numbers), np.int64, len(numbers))
    return np.concatenate([*numbers, np.empty(0, np.int64)]), lengths
