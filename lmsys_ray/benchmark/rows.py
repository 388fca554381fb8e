"""Which rows of the input a benchmark scores."""

from __future__ import annotations

import numpy as np

from lmsys_ray.engine.ragged import RaggedIds


def representative_rows(lengths: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Returns indices of `count` rows whose lengths are distributed like all `lengths` [rows], in random order.

    They are the middles of equal parts of the sorted rows: a random sample of this size would miss the mean by more.
    Returns all rows where there are at most `count`.
    """
    order = np.argsort(lengths, kind="stable")
    if count < len(order):
        order = order[((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)]
    return np.random.default_rng(seed).permutation(order)


def common_tokens(a: RaggedIds, b: RaggedIds) -> np.ndarray:
    """Returns with how many equal tokens each row of `a` and that of `b` begin, int64 [rows]."""
    common = np.zeros(len(a), np.int64)
    for row, most in enumerate(np.minimum(a.lengths, b.lengths)):
        differing = np.flatnonzero(a[row][:most] != b[row][:most])
        common[row] = differing[0] if len(differing) else most
    return common
