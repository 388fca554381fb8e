"""Whether numbers are probabilities or scores, and what to say where they are not."""

from collections.abc import Sequence

import numpy as np

from lmsys_ray.errors import UsageError
from lmsys_ray.run_directory.score_checks import are_probabilities, are_scores

ROUNDED = 0.02
"""How far from 1 the sum of probabilities may be that were rounded to two decimals; they are divided by it."""

_EXACT = 1e-5
"""Sums that are closer to 1 are left as they are."""

_PERCENT = (98.0, 102.0)


def usable(values: np.ndarray) -> np.ndarray:
    """Returns which rows of `values` [rows, 3 or 2] are probabilities, or scores: bool [rows]."""
    return are_probabilities(values) if values.shape[1] == 3 else are_scores(values)


def summing_to_one(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns probabilities [rows, 3], rounded ones divided by their sum, and how many rows were; scores as they are.

    Rows that are no probabilities stay as they are.
    """
    if values.shape[1] != 3:
        return values, 0
    with np.errstate(invalid="ignore"):
        sums = values.sum(axis=1)
        off = np.abs(sums - 1)
        rounded = (off > _EXACT) & (off <= ROUNDED) & (values >= 0).all(axis=1)
    values = np.where(rounded[:, None], values / np.where(rounded, sums, 1)[:, None], values)
    return values, int(rounded.sum())


def check_head(path: str, columns: Sequence[str], values: np.ndarray) -> None:
    """Raises `UsageError` where most of a file's first rows are not usable; `columns` are those of `values`."""
    good = usable(summing_to_one(values)[0])
    if not len(good):
        raise UsageError(f"{path} holds no rows; give a file with an id and the scores of each row")
    if 2 * np.count_nonzero(good) >= len(good):
        return
    first = int(np.argmin(good))
    numbers = shown(values[first])
    place = f"{path}, row {first + 1} has {', '.join(columns)} = {numbers}"
    if values.shape[1] == 2:
        raise UsageError(f"{place}, and so do most of its first rows; scores are finite numbers")
    with np.errstate(invalid="ignore"):
        sums = values[~good].sum(axis=1)
        percent = ((sums >= _PERCENT[0]) & (sums <= _PERCENT[1])).all()
    if percent:
        raise UsageError(f"{place}, which are percentages as in its first rows; divide them by 100")
    raise UsageError(f"{place}, and so its first rows are no probabilities; those are from 0 on and sum to 1")


def shown(values: np.ndarray) -> str:
    """Returns numbers as text."""
    return ", ".join(f"{value:.6g}" for value in values.tolist())
