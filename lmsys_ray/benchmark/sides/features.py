"""The features of the notebook's LightGBM member: dense, by scikit-learn and pandas as in the notebook, or ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray.benchmark.side_process import Side, resident_memory
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.members.lightgbm.features import make_features
from lmsys_ray.members.lightgbm.scorer import batches
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings

_WORDS, _CHARACTERS = 3000, 3000
"""Terms of the two vocabularies."""

_NOTEBOOK_BATCH = 1000


def save_vocabularies(texts: Sequence[str], path: Path) -> None:
    """Fits the vocabularies of words and of n-grams of 1 to 5 characters; the sides only count them."""
    words = CountVectorizer(max_features=_WORDS).fit(texts)
    characters = CountVectorizer(analyzer="char", ngram_range=(1, 5), max_features=_CHARACTERS).fit(texts)
    settings = [VectorizerSettings.of(vectorizer).model_dump() for vectorizer in (words, characters)]
    path.write_text(json.dumps(settings), encoding="ascii")


def load(task: BenchmarkTask, name: str) -> Side:
    """Returns a side that computes the features of every row, `dense` or `sparse`, in batches that are not kept.

    It reports the number of rows, the sum of the features, and the memory in bytes before the run.
    """
    conversations = pq.read_table(task.conversations_file)
    settings = json.loads(task.vocabularies_file.read_text(encoding="ascii"))
    words, characters = (VectorizerSettings.model_validate(part) for part in settings)
    if name == "dense":
        frame = conversations.to_pandas()
        vectorizers = [words.sklearn(), characters.sklearn()]
        starts = range(0, len(frame), _NOTEBOOK_BATCH)

        def matrices() -> Iterator[Any]:
            return (dense_features(frame[start : start + _NOTEBOOK_BATCH], vectorizers) for start in starts)
    else:
        features = make_features("notebook", (words, characters), "auto")

        def matrices() -> Iterator[Any]:
            return (features.matrix(batch) for batch in batches(conversations))

    before = resident_memory()

    def run() -> dict[str, Any]:
        total = sum(matrix.sum() for matrix in matrices())
        return {"rows": conversations.num_rows, "sum": float(total), "before": before}

    return run


def dense_features(frame: pd.DataFrame, vectorizers: Sequence[CountVectorizer]) -> np.ndarray:
    """Returns float64 [rows, columns] of raw conversations as the notebook computes them, with dense matrices."""
    a, b = (_logarithms(frame[cell], vectorizers) for cell in ("response_a", "response_b"))
    difference = a - b
    extras = [frame[cell].str.count(pattern) for pattern in ("\n", "\n\n", ".", " ", '","') for cell in CELLS]
    extras += [frame["response_b"].str.len(), frame["response_b"].str.split().apply(len)]
    counts = np.stack([extra.to_numpy() for extra in extras], axis=1).astype(np.float64)
    return np.hstack([difference, np.abs(difference), np.sqrt(counts), np.log1p(counts)])


def _logarithms(texts: pd.Series, vectorizers: Sequence[CountVectorizer]) -> np.ndarray:
    """Returns sign(x) log(1 + |x|) of the counts, float32 [rows, terms]."""
    counts = np.hstack([vectorizer.transform(texts).toarray().astype(np.float32) for vectorizer in vectorizers])
    return np.sign(counts) * np.log1p(np.abs(counts))
