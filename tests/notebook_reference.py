"""The notebook's LightGBM features once more, plainly: pandas and dense matrices. Tests compare the package with it."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer


def symlog(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def lightgbm_features(frame: pd.DataFrame, cvec: CountVectorizer, ccvec: CountVectorizer) -> np.ndarray:
    """Returns float64 [rows, 2 * terms + 34] of a frame with the raw cells prompt, response_a and response_b."""

    def dense(column: str) -> np.ndarray:
        blocks = [vectorizer.transform(frame[column]) for vectorizer in (cvec, ccvec)]
        return np.hstack([symlog(np.asarray(block.astype(np.float32).todense())) for block in blocks])

    a, b = dense("response_a"), dense("response_b")
    v = np.hstack([a - b, np.abs(a - b)])
    columns = ["prompt", "response_a", "response_b"]
    extras = [frame[column].str.count(pattern) for pattern in ["\n", "\n\n", ".", " ", '","'] for column in columns]
    extras.append(frame["response_b"].str.len())
    extras.append(frame["response_b"].str.split().apply(len))
    e = np.stack([extra.to_numpy() for extra in extras], axis=1)
    return np.hstack([v, np.sqrt(e), np.log1p(e)])
