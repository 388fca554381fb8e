"""What `jobs/train_lightgbm.py --set key=value` can change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from lmsys_ray.config import Strict
from lmsys_ray.conversations import CellForm
from lmsys_ray.members.lightgbm.features import FeatureKind

Share = Annotated[float, Field(gt=0, le=1)]

View = Literal["all", "responses"]
"""Which columns a booster may use: `responses` leaves out those of the prompt alone, which tell collections apart."""


class LightGBMOptions(Strict):
    """How boosters are fitted. The defaults are those of the packaged member."""

    features: FeatureKind = "preference"
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
        description="fewer rounds where so many bring no better log loss on rows kept out for it; 0: never",
    )
    learning_rate: PositiveFloat = 0.1
    leaves: int = Field(12, ge=2)
    rows_per_leaf: PositiveInt = 100
    column_share: Share = Field(0.1, description="columns that a tree may use")
    row_share: Share = Field(0.7, description="rows that a tree is fitted on")
    l2: float = Field(20.0, ge=0)
    threads: PositiveInt | None = Field(None, description="none: as many as there are cores")

    words: PositiveInt = Field(3000, description="terms of the notebook's word counts")
    characters: PositiveInt = Field(1500, description="terms of the notebook's character counts")
    character_ngrams: tuple[int, int] = Field((1, 4), description="their shortest and longest")

    def fitted_views(self) -> list[View]:
        """Returns the views that the features have: the notebook's never tell of the prompt alone."""
        return self.views if self.features == "preference" else ["all"]

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
