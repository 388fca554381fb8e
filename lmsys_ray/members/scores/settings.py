"""The settings of a member whose scores were made elsewhere."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from lmsys_ray.config.base import PathName, PositiveInt
from lmsys_ray.members.two_scores import TwoScoreSettings

PROBABILITIES = ("a", "b", "tie")
SCORES = ("score_a", "score_b")
"""The keys of `columns` beside `id`: of a file that holds probabilities, and of one that holds two scores."""

_KEYS = ("id", *PROBABILITIES, *SCORES)


def _columns(value: Any) -> Any:
    """Refuses what is no mapping of these keys to names, or one for both kinds of files."""
    texts = isinstance(value, dict) and all(isinstance(name, str) and name for name in value.values())
    if not texts or set(value) - set(_KEYS):
        raise ValueError(f"a mapping of {', '.join(_KEYS[:-1])} or {_KEYS[-1]} to names of columns")
    if set(value) & set(PROBABILITIES) and set(value) & set(SCORES):
        raise ValueError(f"either {', '.join(PROBABILITIES)} for probabilities, or {' and '.join(SCORES)} for scores")
    return value


class ScoresSettings(TwoScoreSettings):
    """Probabilities or scores from elsewhere; link, scale and tie apply where a row has two scores."""

    MUTABLE: ClassVar[frozenset[str]] = TwoScoreSettings.MUTABLE | {"workers"}
    ARTIFACTS: ClassVar[tuple[str, ...]] = ("path",)

    kind: Literal["scores"]
    path: PathName = Field(
        description="file with an id and the scores of each row, or URL of one: .csv .jsonl (.gz too) .parquet; or a "
        "run directory, whose submission is read unless member is set",
    )
    member: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] | None = Field(
        None, description="the member of that run whose own scores are read; none: path holds them"
    )
    columns: Annotated[dict[str, str], BeforeValidator(_columns)] = Field(
        {},
        description="names of columns where they are not id with winner_model_a, winner_model_b, winner_tie, or with "
        "a, b, tie, or with score_a, score_b: a mapping of id, and of a, b, tie or of score_a, score_b",
    )
    swap: Literal[False] = Field(False, description="not offered for this kind")
    workers: PositiveInt = Field(
        1, description="processes that look rows up, each with the ids and scores of a file in memory"
    )

    def named_artifacts(self) -> dict[str, str]:
        """Returns what is read: the file, or the folder of a member's scores in a run directory."""
        path = self.path if self.member is None else os.path.join(self.path, "scores", self.member)
        return {"path": path}
