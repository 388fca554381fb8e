"""The settings of the outputs of a run; none is part of its fingerprint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lmsys_ray.config.base import Probability, StrictModel
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings

PreferenceFormat = Literal["trl", "trl_conversational", "argilla", "rewardbench"]


class PreferenceSettings(StrictModel):
    """Which rows become preferences, and how they are written."""

    format: Annotated[
        Literal["none"] | PreferenceFormat,
        Field(description="form of preferences.jsonl or preferences.parquet (docs/outputs.md); none: no such file"),
    ] = "none"
    file: Annotated[Literal["jsonl", "parquet"], Field(description="kind of file")] = "jsonl"
    margin: Annotated[
        Probability,
        Field(
            description="rows with P(better) - P(worse) of at least so much; rewardbench has all rows that people "
            "decided"
        ),
    ] = 0.2
    most_tie: Annotated[Probability, Field(description="rows with P(tie) of at most so much; not for rewardbench")] = (
        0.5
    )


class OutputSettings(StrictModel):
    """What a run writes; any start may change it, and then only the join runs again."""

    escape_formulas: Annotated[
        bool, Field(description="put ' before ids that begin with = + - or @, which spreadsheets run as formulas")
    ] = False
    scores: Annotated[
        bool, Field(description="write scores.parquet: each row with the scores of members and the blend")
    ] = True
    preferences: Annotated[PreferenceSettings, Field(description="rows as preferences for training")] = (
        PreferenceSettings()
    )
    doubtful: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="rows of each kind in doubtful.jsonl: members disagree, the blend is unsure, it contradicts "
            "the label; 0: no such file",
        ),
    ] = 100
    leaderboard: Annotated[LeaderboardSettings, Field(description="strengths of the models that are named")] = (
        LeaderboardSettings.model_validate({})
    )
    doubtful_texts: Annotated[bool, Field(description="with the conversations of these rows")] = False


class ReportSettings(StrictModel):
    """The page about a run, which is made from its directory once its outputs are written."""

    enabled: Annotated[bool, Field(description="write report.html, a page about the run")] = True
    texts: Annotated[bool, Field(description="with the beginnings of the conversations of doubtful rows")] = False
