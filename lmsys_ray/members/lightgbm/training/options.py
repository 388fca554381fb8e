"""What `jobs/train_lightgbm.py --set key=value` can change."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from lmsys_ray.config.base import StrictModel
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.lightgbm.features import FeatureKind
from lmsys_ray.members.lightgbm.shrinkage import Shrinkage, Turns, symmetric
from lmsys_ray.metrics import class_shares

Share = Annotated[float, Field(gt=0, le=1)]

Weight = Annotated[float, Field(ge=0, le=1)]

View = Literal["all", "responses"]
"""Which columns a booster may use: `responses` omits those of the prompt only, which identify collections."""


class LightGBMOptions(StrictModel):
    """How boosters are fitted. The defaults are those of the packaged member, but for `prior`."""

    features: FeatureKind = Field(
        "preference", description="preference: this package's, the same bits on every CPU; notebook: the reference's"
    )
    cells: CellForm = Field("auto", description="whether cells are JSON lists of turns or plain text")
    seed: int = Field(3, ge=0, description="of the folds and of the first booster of each fold")
    views: list[View] = Field(default=["all", "responses"], min_length=1, description="a booster for each")
    boosters: PositiveInt = Field(1, description="boosters of each fold and view, one seed each")
    fold_column: str | None = Field(None, description="hold out each value of this column instead of random folds")
    swap: bool = Field(True, description="fit on both orders of A and B, the label with them")

    rounds: PositiveInt = Field(90, description="the most rounds; with --fold -1 exactly these")
    patience: int = Field(
        20,
        ge=0,
        description="stop after this many rounds without a better log loss on rows held out for that; 0: never",
    )
    learning_rate: PositiveFloat = Field(0.1, description="what each tree adds of itself")
    leaves: int = Field(12, ge=2, description="leaves of a tree")
    rows_per_leaf: PositiveInt = Field(100, description="rows that a leaf holds at least")
    column_share: Share = Field(0.1, description="columns that a tree may use")
    row_share: Share = Field(0.7, description="rows that a tree is fitted on")
    l2: float = Field(20.0, ge=0, description="penalty of a leaf's squared value")

    turns: Turns = Field(
        "apart", description="turns of a conversation: judged apart and averaged, or joined to one text"
    )
    linear_share: Weight = Field(0.5, description="weight of a linear model in the log odds of the winner")
    linear_penalty: PositiveFloat = Field(0.1, description="of the linear model's squared weights")
    prior_weight: Weight = Field(0.08, description="share of the prior in what is said of one turn")
    prior_weight_turns: Weight = Field(0.4, description="share of the prior in what is said of several turns")
    prior: tuple[Weight, Weight, Weight] | None = Field(
        None, description="shares of a, b and tie that are mixed in; none: those of the rows to fit on"
    )

    threads: PositiveInt | None = Field(None, description="none: as many as there are cores")

    words: PositiveInt = Field(3000, description="terms of the notebook's word counts")
    characters: PositiveInt = Field(1500, description="terms of the notebook's character counts")
    character_ngrams: tuple[int, int] = Field((1, 4), description="their shortest and longest")

    def fitted_views(self) -> list[View]:
        """Returns the views that the features have: the notebook's have no columns of the prompt only."""
        return self.views if self.features == "preference" else ["all"]

    def shrinkage(self, labels: np.ndarray) -> Shrinkage | None:
        """Returns what is done with the probabilities of boosters fitted on rows of these `labels` int [rows].

        The notebook's features have none of it.
        """
        if self.features != "preference":
            return None
        return Shrinkage(
            turns=self.turns,
            linear_share=self.linear_share,
            prior_weight=self.prior_weight,
            prior_weight_turns=self.prior_weight_turns,
            prior=symmetric(self.prior or class_shares(labels).tolist()),
        )

    @field_validator("prior")
    @classmethod
    def _prior_is_one(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and abs(sum(value) - 1) > 1e-6:
            raise ValueError("three shares that sum to 1")
        return value

    def parameters(self, seed: int) -> dict[str, object]:
        """Returns the parameters under LightGBM's names."""
        return {
            "objective": "multiclass",
            "num_class": 3,
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.rows_per_leaf,
            "feature_fraction": self.column_share,
            "bagging_fraction": self.row_share,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "max_bin": 63,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads or 0,
            "verbosity": -1,
        }
