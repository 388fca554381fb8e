"""The fast vectorizer counts exactly what scikit-learn's counts, whatever the settings and the texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray.members.lightgbm import ngrams
from lmsys_ray.members.lightgbm.vectorizer import Vectorizer, VectorizerSettings
from tests.members.lightgbm.texts import anything, cells, few_letters

CHOICES = [
    {"analyzer": "char", "ngram_range": (1, 4)},
    {"analyzer": "char", "ngram_range": (3, 3), "lowercase": False},
    {"analyzer": "char_wb", "ngram_range": (1, 3)},
    {"analyzer": "char_wb", "ngram_range": (4, 6), "strip_accents": "unicode"},
    {"analyzer": "char", "ngram_range": (2, 3), "strip_accents": "ascii", "binary": True},
    {"analyzer": "word", "ngram_range": (1, 1)},
    {"analyzer": "word", "ngram_range": (1, 3)},
    {"analyzer": "word", "ngram_range": (2, 2), "stop_words": ["the", "and"], "binary": True},
    {"analyzer": "word", "ngram_range": (1, 1), "stop_words": "english", "strip_accents": "unicode"},
    {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\S+ ?\S*"},
    {"analyzer": "word", "ngram_range": (1, 1), "token_pattern": r"(?u)\b(\w)\w*\b"},
]


def fitted(choice: dict, texts: list[str], **more: object) -> tuple[CountVectorizer, Vectorizer]:
    sklearn = CountVectorizer(**choice, **more).fit(texts)
    return sklearn, Vectorizer(VectorizerSettings.of(sklearn))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_counts_equal_those_of_scikit_learn(choice: dict) -> None:
    sklearn, ours = fitted(choice, cells(60, seed=1), max_features=400)
    texts = cells(60, seed=2)
    assert np.array_equal(ours.counts(texts).toarray(), sklearn.transform(texts).toarray())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@settings(max_examples=40, deadline=None)
@given(st.lists(anything | few_letters, min_size=1, max_size=5))
def test_counts_of_any_text_equal_those_of_scikit_learn(choice: dict, texts: list[str]) -> None:
    sklearn, ours = fitted(choice, ["a an and b", "the end of it", *texts])
    assert np.array_equal(ours.counts(texts).toarray(), sklearn.transform(texts).toarray())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_terms_left_out_leave_the_others_as_they_are(choice: dict) -> None:
    texts = cells(40)
    _, ours = fitted(choice, texts, max_features=300)
    needed = np.arange(ours.columns) % 3 == 0
    assert np.array_equal(ours.only(needed).counts(texts).toarray(), ours.counts(texts).toarray() * needed)
    assert ours.only(np.zeros(ours.columns, bool)).counts(texts).nnz == 0


def test_texts_longer_than_a_chunk_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sklearn, ours = fitted(CHOICES[0], cells(30), max_features=200)
    monkeypatch.setattr(ngrams, "_POSITIONS_AT_ONCE", 7)
    monkeypatch.setattr(ngrams, "_COUNTERS_AT_ONCE", 500)
    assert np.array_equal(ours.counts(cells(5)).toarray(), sklearn.transform(cells(5)).toarray())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_vocabulary_too_large_for_tables_is_counted_the_same(choice: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "_TABLE_ENTRIES", 100)
    sklearn, ours = fitted(choice, cells(60, seed=1), max_features=400)
    assert np.array_equal(ours.counts(cells(9)).toarray(), sklearn.transform(cells(9)).toarray())


def test_no_text_gives_no_row() -> None:
    for choice in CHOICES:
        _, ours = fitted(choice, cells(30), max_features=50)
        assert ours.counts([]).shape == (0, ours.columns)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"analyzer": "syllable"}, "analyzer"),
        ({"ngram_range": (3, 2)}, "ascending"),
        ({"token_pattern": "("}, "regular expression"),
        ({"token_pattern": "(a)(b)"}, "one group"),
        ({"vocabulary": ["a", "a"]}, "once"),
        ({"vocabulary": []}, "vocabulary"),
        ({"max_df": 1}, "max_df"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, sentence: str) -> None:
    good = {"analyzer": "word", "ngram_range": (1, 1), "vocabulary": ["a", "b"]}
    with pytest.raises(ValidationError, match=sentence):
        VectorizerSettings(**(good | change))


class Subclass(CountVectorizer):
    """Counts like its parent, as far as one can know."""


@pytest.mark.parametrize(
    ("vectorizer", "sentence"),
    [
        (Subclass(), "it is a Subclass"),
        (CountVectorizer(analyzer=str.split), "its analyzer is a function"),
        (CountVectorizer(tokenizer=str.split, token_pattern=None), "its tokenizer is a function"),
        (CountVectorizer(preprocessor=str.upper), "its preprocessor is a function"),
        (CountVectorizer(strip_accents=str.upper), "its strip_accents is a function"),
    ],
)
def test_vectorizers_with_code_of_their_own_are_refused(vectorizer: CountVectorizer, sentence: str) -> None:
    vectorizer.fit(["one two", "two three"])
    with pytest.raises(ValueError, match=sentence):
        VectorizerSettings.of(vectorizer)


def test_vectorizers_that_were_never_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="was it fitted"):
        VectorizerSettings.of(CountVectorizer())
