"""The settings of a leaderboard."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmsys_ray.config.base import StrictModel

TieName = Literal["half", "davidson", "rao_kupper"]
StyleName = Literal["none", "length", "markdown", "both"]


class LeaderboardSettings(StrictModel):
    """How strengths are estimated; not part of the fingerprint of a run."""

    write: Literal["auto"] | bool = Field(
        "auto",
        description="whether a run writes leaderboard.csv and leaderboard.json; auto: where rows name their models",
    )
    outcomes: Literal["expected", "labels"] = Field(
        "expected",
        description="expected: the blend's probabilities; labels: what people chose, where rows have a label",
    )
    ties: TieName = Field(
        "half",
        description="half: a tie is half a win for each; davidson, rao_kupper: ties are outcomes of their own, with a "
        "fitted parameter",
    )
    style: StyleName = Field(
        "none",
        description="what strengths are freed from: the length of the responses, their markdown (headers, bold text, "
        "list items), or both",
    )
    bootstrap: int = Field(
        100, ge=0, le=10_000, description="resamples of the rows, for the bootstrap intervals; 0: none are made"
    )
    anchor: str | None = Field(
        None, description="the model that has strength 1000; none: 1000 is the mean of the models"
    )
