"""A linear model of the winner, beside the boosters: it carries over better to other kinds of conversations.

It is the logistic regression of Bradley and Terry (1952) on differences between two responses, without an intercept, so
that it has no side. Measurements: docs/lab/default.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveFloat, model_validator

from lmsys_ray.members.lightgbm.portable import log, softmax

CLIP = 3.0
"""Differences count for at most this many times their scale, so that no single one decides."""

_SMALLEST = 1e-15


class LinearModel(BaseModel):
    """The log odds of A against B are the sum of weight times difference over scale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scales: list[PositiveFloat]
    """Typical sizes of the differences, one for each column that changes its sign."""
    weights: list[FiniteFloat]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.scales) != len(self.weights):
            raise ValueError(f"{len(self.scales)} scales for {len(self.weights)} weights")
        return self


class LinearModels(BaseModel):
    """What `linear.json` says: models whose log odds are averaged, and their columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[str]
    models: list[LinearModel]

    @model_validator(mode="after")
    def _fit_the_columns(self) -> Self:
        if not self.models or any(len(model.weights) != len(self.columns) for model in self.models):
            raise ValueError(f"its models do not have a weight for each of {len(self.columns)} columns")
        return self


def log_odds(models: Sequence[LinearModel], differences: np.ndarray) -> np.ndarray:
    """Returns the mean log odds of A against B [rows] for `differences` [rows, columns].

    The sums are taken column by column: a product of matrices would have other last bits on another CPU.
    """
    total = np.zeros(len(differences))
    for model in models:
        for column, scale, weight in zip(differences.T, model.scales, model.weights, strict=True):
            total += weight * np.clip(column / scale, -CLIP, CLIP)
    return total / len(models)


def with_linear(probabilities: np.ndarray, odds: np.ndarray, share: float) -> np.ndarray:
    """Returns `probabilities` [rows, 3] with a `share` of the log `odds` [rows] in their own of A against B.

    P(tie) stays as it is.
    """
    a, b, tie = np.maximum(probabilities, _SMALLEST).T
    mixed = (1 - share) * (log(a) - log(b)) + share * odds
    winner = softmax(np.stack([mixed, np.zeros_like(mixed)], axis=1))
    return np.stack([(a + b) * winner[:, 0], (a + b) * winner[:, 1], tie], axis=1)
