"""How a member speaks with less certainty than its boosters: turn by turn, and mixed with class shares.

Boosters are surest where nothing like a row was learnt from. Measurements: docs/lab/default.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lmsys_ray.members.lightgbm.turns import TurnMatrix

Share = Annotated[float, Field(ge=0, le=1)]

Turns = Literal["apart", "joined"]
"""Whether turns are judged one by one and their probabilities averaged, or joined to one text."""


class Shrinkage(BaseModel):
    """What a member does with the probabilities of its boosters, as `metadata.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: Turns
    linear_share: Share
    """Weight of the linear model in the log odds of the winner."""
    prior_weight: Share
    """Share of `prior` in the probabilities of a conversation of one turn."""
    prior_weight_turns: Share
    """The same of a conversation of several turns; one that is judged as one text counts as one turn."""
    prior: tuple[Share, Share, Share]
    """Shares of a, b and tie; those of a and b are equal, so that no side is preferred."""

    @model_validator(mode="after")
    def _is_a_prior(self) -> Self:
        a, b, tie = self.prior
        if a != b or abs(a + b + tie - 1) > 1e-6:
            raise ValueError("prior: its first two shares must be equal, and all three sum to 1")
        return self


def symmetric(shares: Sequence[float]) -> tuple[float, float, float]:
    """Returns class shares with those of a and b averaged, rounded."""
    tie = round(shares[2] / sum(shares), 6)
    side = round((1 - tie) / 2, 7)
    return side, side, tie


def averaged(probabilities: np.ndarray, turns: TurnMatrix) -> np.ndarray:
    """Returns the means [conversations, 3] of the `probabilities` [all turns, 3] of each conversation's turns."""
    conversations = len(turns.several)
    means = np.zeros((conversations, probabilities.shape[1]))
    np.add.at(means, turns.rows, probabilities)  # one after another, so that the last bits are the same everywhere
    return means / np.bincount(turns.rows, minlength=conversations)[:, None]


def shrunk(probabilities: np.ndarray, several: np.ndarray, shrinkage: Shrinkage) -> np.ndarray:
    """Returns `probabilities` [conversations, 3] mixed with the prior, more where there are `several` turns (bool)."""
    weight = np.where(several, shrinkage.prior_weight_turns, shrinkage.prior_weight)[:, None]
    return (1 - weight) * probabilities + weight * np.array(shrinkage.prior)
