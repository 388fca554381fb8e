"""Checks that scores belong to their shard and are probabilities, or finite scores of both responses."""

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES

TWO_SCORES = ("score_a", "score_b")
"""The columns of a member that scores each response by itself, in place of probabilities."""

SUM_TOLERANCE = 1e-4
"""How far from 1 the sum of a row may be; the rounding of float32 is far smaller."""


def misfit(shard: pa.Table, scores: pa.Table) -> str | None:
    """Returns why `scores` are not those of `shard`; None if they are.

    They must hold exactly its scorable rows, in order, each with probabilities, two scores or a reason.
    """
    rows = shard["row"].to_numpy()[~shard["rejected"].to_numpy(zero_copy_only=False)]
    if not np.array_equal(rows, scores["row"].to_numpy()):
        return "does not hold the rows of its shard"
    if "reason" in scores.column_names:
        scores = scores.filter(scores["reason"].is_null())
    if TWO_SCORES[0] in scores.column_names:
        return None if are_scores(scores_of(scores)).all() else "holds scores that are not finite"
    return None if are_probabilities(probabilities_of(scores)).all() else "holds values that are not probabilities"


def probabilities_of(scores: pa.Table, order: str = "") -> np.ndarray:
    """Returns the probabilities of a table of scores, float64 [rows, 3]; of one order, such as `_plain`, alone."""
    return np.column_stack([scores[name + order].to_numpy() for name in CLASSES]).astype(np.float64)


def scores_of(scores: pa.Table) -> np.ndarray:
    """Returns the scores of A and of B in a table of scores that has them, float64 [rows, 2]."""
    return np.column_stack([scores[name].to_numpy() for name in TWO_SCORES]).astype(np.float64)


def are_scores(values: np.ndarray) -> np.ndarray:
    """Returns for each row of `values` [rows, 2] whether it is finite: bool [rows]."""
    return np.isfinite(values).all(axis=1)


def are_probabilities(values: np.ndarray) -> np.ndarray:
    """Returns for each row of `values` [rows, 3] whether it is finite, not negative and sums to 1: bool [rows]."""
    with np.errstate(invalid="ignore"):
        sums = values.sum(axis=1, dtype=np.float64)
    return np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)
