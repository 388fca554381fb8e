"""A small LightGBM member, made as the notebook's was."""

from dataclasses import dataclass
from functools import cache

import lightgbm as lgb
import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from tests.members.lightgbm.texts import conversations
from tests.notebook_reference import lightgbm_features


@dataclass(frozen=True)
class Fitted:
    """The objects that the notebook pickles, and the dense matrix of its features."""

    cvec: CountVectorizer
    ccvec: CountVectorizer
    models: list[lgb.LGBMClassifier]

    def features(self, frame: pd.DataFrame) -> np.ndarray:
        return lightgbm_features(frame, self.cvec, self.ccvec)

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        matrix = self.features(frame)
        return np.mean([model.predict_proba(matrix) for model in self.models], axis=0)


@cache
def fit() -> Fitted:
    """Fits it on made-up conversations whose longer response wins."""
    frame = conversations(240, seed=5).to_pandas()
    texts = pd.concat([frame["response_a"], frame["response_b"]])
    cvec = CountVectorizer(ngram_range=(1, 2), max_features=150).fit(texts)
    ccvec = CountVectorizer(analyzer="char", ngram_range=(1, 4), max_features=400).fit(texts)
    matrix = lightgbm_features(frame, cvec, ccvec)
    lengths = frame["response_a"].str.len() - frame["response_b"].str.len()
    labels = np.select([lengths > 200, lengths < -200], [0, 1], 2)
    options = {"n_estimators": 8, "num_leaves": 7, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
    models = [lgb.LGBMClassifier(**options, random_state=seed, subsample=0.7, subsample_freq=1) for seed in (1, 2)]
    return Fitted(cvec, ccvec, [model.fit(matrix, labels) for model in models])
