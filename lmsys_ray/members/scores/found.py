"""Scores of some rows, as they were found."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lmsys_ray.members.scores.values import shown, usable


class Found(NamedTuple):
    """Scores of rows in their order."""

    values: np.ndarray
    """Probabilities, or the scores of A and B, float32 [rows, 3 or 2]; anything where a row is in `failed`."""
    failed: dict[int, str]
    """By place: why a row has none."""


def named(values: np.ndarray, there: np.ndarray, ids: pa.Array, path: str, missing: str) -> Found:
    """Returns `values` of rows with these ids, and why some have none: it is not `there`, or no probabilities.

    `missing` is said of an id that is not there. What differs from row to row is in parentheses, so that rejects of one
    kind are counted together.
    """
    what = "probabilities" if values.shape[1] == 3 else "finite scores"
    failed = {}
    for row in np.flatnonzero(~(there & usable(values))).tolist():
        if there[row]:
            failed[row] = f"its row in {path} holds no {what} (id {ids[row]}: {shown(values[row])})"
        else:
            failed[row] = f"its id {missing} (id {ids[row]})"
    return Found(values, failed)
