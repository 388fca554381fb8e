"""Divides labelled rows into folds by prompt, so that no prompt is in both training and validation."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CellForm, decode_cell
from lmsys_ray.errors import RunError

_WHITE_SPACE = re.compile(r"\s+")


def prompt_groups(prompts: Sequence[str], form: CellForm) -> np.ndarray:
    """Returns a number for each raw cell, int64 [rows]: the same for prompts that differ only in case and white space.

    Raises `BadCellError` for a cell that cannot be decoded.
    """
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(_normalised(prompt, form), len(numbers)) for prompt in prompts], np.int64)


def _normalised(prompt: str, form: CellForm) -> str:
    text = "\n".join(decode_cell(prompt, form))
    return _WHITE_SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def grouped_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int = 3) -> np.ndarray:
    """Returns the fold of each row, int64 [rows] from 0; groups are not split, and classes are spread evenly.

    `labels` int [rows] index `CLASSES`. Raises `RunError` where there are fewer groups, or rows of a class, than folds.
    """
    if (found := len(np.unique(groups))) < folds:
        raise RunError(
            f"there are {found} distinct prompts for {folds} folds; label more prompts or ask for fewer folds"
        )
    counts = np.bincount(labels, minlength=len(CLASSES))
    for name, count in zip(CLASSES, counts, strict=True):
        if 0 < count < folds:
            raise RunError(f"class {name} has {count} rows for {folds} folds; label more rows or ask for fewer folds")
    fold = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        fold[held_out] = number
    return fold
