"""Looks scores up that were made elsewhere."""

from typing import Any

import pyarrow as pa

from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.scores.file_scores import FileScores, ScoreFile
from lmsys_ray.members.scores.run_scores import RunScores, ScoreRun
from lmsys_ray.members.scores.settings import ScoresSettings
from lmsys_ray.members.scores.values import ROUNDED
from lmsys_ray.run_directory.score_checks import TWO_SCORES
from lmsys_ray.storage.packaged import locate


def source_of(settings: ScoresSettings) -> ScoreFile | ScoreRun:
    """Returns where the scores lie; raises `UsageError` where that is no such file or run."""
    if settings.member is None:
        return ScoreFile(locate(settings.path), settings.columns)
    return ScoreRun(settings.path, settings.member)


class ScoresScorer:
    """Finds the probabilities of rows, or the scores of both responses, by id."""

    def __init__(self, settings: ScoresSettings) -> None:
        """Reads a file; raises `UsageError` or `RunError` where it cannot be used."""
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        source = source_of(settings)
        self._scores: FileScores | RunScores
        if isinstance(source, ScoreRun):
            self._scores = RunScores(source)
            return
        self._scores = FileScores(source)
        self.facts = {"columns": source.columns.all, "rows": self._scores.lines}
        if rounded := self._scores.rounded:
            self.notes.append(
                f"{rounded:,} of {self._scores.lines:,} rows of {source.path} sum to 1 within {ROUNDED:g} only, as "
                "rounded probabilities do; each is divided by its sum"
            )

    def score(self, conversations: pa.Table) -> Scores:
        """Returns the scores of a table with the columns of `CONVERSATIONS`; rows without any are named."""
        values, failed = self._scores.find(conversations)
        if values.shape[1] == len(TWO_SCORES):
            return Scores(None, dict(zip(TWO_SCORES, values.T.copy(), strict=True)), failed=failed)
        return Scores(values, failed=failed)
