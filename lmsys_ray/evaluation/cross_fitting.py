"""Judges what is fitted on rows that it was not fitted on: folds by prompt, each predicted from the others."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from lmsys_ray import CLASSES
from lmsys_ray.data.folds import grouped_folds

FOLDS = 5
"""Folds, or fewer if there are not enough rows."""

Members = Mapping[str, np.ndarray]
"""What is known of some rows, [rows, ...] each."""


class Fitted(Protocol):
    """What a fit returns."""

    def of(self, members: Members, /) -> np.ndarray:
        """Returns probabilities [rows, 3]."""
        ...


def unfitted_because(labels: np.ndarray) -> str | None:
    """Returns why rows of these labels cannot be divided into folds; None if they can."""
    for name, rows in zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)), strict=True):
        if rows == 1:
            return f"class {name} has 1 labelled row; fitted blends are judged across folds, which takes 2 of a class"
    return None


def folds_of(labels: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Returns the fold of each row [rows]: `FOLDS` of them, or fewer if a class or the prompts are too few."""
    classes = np.bincount(labels)
    return grouped_folds(labels, prompts, min(FOLDS, len(np.unique(prompts)), classes[classes > 0].min()))


def cross_fitted(
    members: Members, labels: np.ndarray, folds: np.ndarray, fit: Callable[[Members, np.ndarray], Fitted]
) -> np.ndarray:
    """Returns probabilities [rows, 3]; those of each fold are by what was fitted on the other folds."""
    predicted = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = fit({name: known[~held_out] for name, known in members.items()}, labels[~held_out])
        predicted[held_out] = fitted.of({name: known[held_out] for name, known in members.items()})
    return predicted
