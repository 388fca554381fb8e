"""The kind `scores`: scores that were made elsewhere, looked up by CPU workers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from lmsys_ray.cluster.pool import ACTOR_CPUS, Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.artifacts import check_path
from lmsys_ray.members.protocol import Lane, Scorer
from lmsys_ray.members.scores.settings import ScoresSettings
from lmsys_ray.storage.files import exists, is_directory, path_of
from lmsys_ray.storage.packaged import locate


class ScoresKind:
    """Scores from elsewhere; a worker reads the ids of a shard itself, so there is no encoder."""

    settings = ScoresSettings
    lane: Lane = "cpu"

    def preflight(self, settings: ScoresSettings, key: str) -> ScoresSettings:
        """Returns the settings, with a run directory's submission in place of the directory.

        Raises `UsageError` for a file without ids and scores, or whose first rows hold none, and for a run that has not
        scored all of its rows.
        """
        from lmsys_ray.members.scores.run_scores import ScoreRun
        from lmsys_ray.members.scores.scorer import source_of

        check_path(f"{key}.path", settings.path, hub=False, accepted="a file of scores, a run directory")
        if settings.member is not None and settings.columns:
            raise UsageError(f"settings: {key}.columns is of a file; leave it out where member names scores of a run")
        with _named(f"{key}.path"):
            if settings.member is None:
                settings = settings.model_copy(update={"path": _file_of(settings.path)})
            source = source_of(settings)
            if not isinstance(source, ScoreRun):
                source.check()
        return settings

    def check_ids(self, settings: ScoresSettings, key: str, ids: pa.Array) -> None:
        """Raises `UsageError` where most of `ids`, the first of the input, have no scores."""
        from lmsys_ray.members.scores.id_check import check_ids
        from lmsys_ray.members.scores.scorer import source_of

        with _named(f"{key}.path"):
            source = source_of(settings)
            check_ids(source.path, source.ids(), ids)

    def placement(self, settings: ScoresSettings, shards: int, cluster: Resources) -> Pool:
        """Returns a pool of few actors, since each holds a file in memory."""
        return Pool(min(shards, settings.workers), ACTOR_CPUS, encoders=0)

    def encoder(self, settings: ScoresSettings, cells: CellForm) -> None:
        """Returns None: ids need no encoding."""

    def scorer(self, settings: ScoresSettings, cells: CellForm) -> Scorer:
        """Reads a file, or opens a run."""
        from lmsys_ray.members.scores.scorer import ScoresScorer

        return ScoresScorer(settings)


def _file_of(path: str) -> str:
    """Returns the file that `path` names: itself, or the submission in a run directory."""
    if not is_directory(path_of(locate(path))):
        return path
    submission = os.path.join(path, "submission.csv")
    if exists(path_of(submission)):
        return submission
    if exists(path_of(os.path.join(path, "manifest.json"))):
        raise UsageError(f"{path} has no submission.csv; finish that run, or name one of its members by member")
    raise UsageError(f"{path} is a directory, but no run directory; name one of its files")


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Puts the setting before the sentence of an error."""
    try:
        yield
    except RunError as error:
        raise type(error)(f"settings: {key}: {error}") from None


KIND = ScoresKind()
