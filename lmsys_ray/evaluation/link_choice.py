"""Which link goes with a member's scores: each is fitted, and judged on rows that it was not fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from lmsys_ray.ensemble.links import Link, LinkName, fit_link, without_labels
from lmsys_ray.evaluation.rounding import rounded
from lmsys_ray.metrics import METRICS, Estimate, estimate_metrics

_LOG_LOSS = METRICS.index("log_loss")


@dataclass(frozen=True)
class LinkChoice:
    """The link of one member, and both links out of fold on the same rows."""

    in_use: LinkName
    estimates: Mapping[LinkName, Estimate]

    @property
    def other(self) -> LinkName:
        """The link that is not in use."""
        return next(name for name in self.estimates if name != self.in_use)

    @property
    def margin(self) -> Estimate:
        """What the other link has more than the one in use."""
        return self.estimates[self.other] - self.estimates[self.in_use]

    @property
    def chosen(self) -> LinkName:
        """The link in use, unless the log loss of the other is clearly lower: the interval excludes 0."""
        return self.other if self.margin.intervals()[1, _LOG_LOSS] < 0 else self.in_use


def choose_links(
    differences: Mapping[str, np.ndarray],
    labels: np.ndarray,
    prompts: np.ndarray,
    folds: np.ndarray,
    in_use: Mapping[str, LinkName],
) -> dict[str, LinkChoice]:
    """Returns the choice for each member with differences of scores [rows], cross-fitted over `folds` [rows]."""
    return {
        member: LinkChoice(
            in_use[member],
            {
                name: estimate_metrics(_out_of_fold(name, values, labels, folds), labels, prompts)
                for name in get_args(LinkName)
            },
        )
        for member, values in differences.items()
    }


def _out_of_fold(name: LinkName, differences: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    predicted = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        held_out = folds == fold
        predicted[held_out] = fitted(name, differences[~held_out], labels[~held_out]).probabilities(
            differences[held_out]
        )
    return predicted


def fitted(name: LinkName, differences: np.ndarray, labels: np.ndarray) -> Link:
    """Returns the link fitted to differences and classes [rows], with parameters as settings files hold them.

    Where no row is a tie, ties have the share of Laplace's rule, so that a tie to come is not impossible.
    """
    link = fit_link(name, differences, labels)
    if not link.tie:
        link = without_labels(name, differences, 1 / (len(labels) + 2), scale=link.scale)
    return Link(name, rounded(link.scale), rounded(link.tie))
