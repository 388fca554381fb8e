"""What the files of a run say of it beside its rows: settings, manifest, history, rejects, times of scores."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.ensemble.leaderboard.board import Standing
from lmsys_ray.ensemble.leaderboard.files import JSON
from lmsys_ray.ensemble.rejects import kinds
from lmsys_ray.errors import UsageError
from lmsys_ray.evaluation.labelled_scores import settings_of
from lmsys_ray.report.status import Status, read_status
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import Listed, exists, read_bytes

_STANDINGS = TypeAdapter(list[Standing])


@dataclass(frozen=True)
class Facts:
    """A run without its rows."""

    run: RunDirectory
    """Bound to its manifest."""
    settings: Settings
    manifest: Manifest
    status: Status
    reading: Reading
    rejects: Counter[str]
    """Rows without a score of their own, by the kind of reason."""
    scored_at: Mapping[str, Mapping[int, float]]
    """By member and shard: when its scores were written, seconds since 1970; 0 where the storage does not tell."""
    ingested_at: Mapping[int, float]
    """The same of the shards of conversations."""
    shards: int
    """Shards of conversations so far."""
    standings: list[Standing]
    """The leaderboard of a finished run that has one."""

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.run.path.name

    @property
    def finished(self) -> bool:
        """Whether the last start came to its end."""
        return self.status.state == "done"

    @property
    def members(self) -> list[str]:
        """The members of the blend."""
        return list(self.settings.blending().weights)


def read_facts(path: RunDirectory) -> Facts:
    """Returns what the files of a run say; raises `UsageError` for what is no run directory."""
    manifest = path.read_manifest()
    if manifest is None:
        raise UsageError(
            f"{path.path} is not a run directory, or nothing was started in it; name one that score.py wrote"
        )
    run = RunDirectory(path.path, manifest.binding)
    settings = settings_of(run)
    status = read_status(run, time.time())  # which only says whether a start is at work
    scored_at = {name: _times(run.listed_scores(name)) for name in settings.blending().weights}
    return Facts(
        run=run,
        settings=settings,
        manifest=manifest,
        status=status,
        reading=Reading.from_dict(manifest.ingest.reading),
        rejects=kinds(run.reject_reasons()) if exists(run.rejects) else Counter(),
        scored_at=scored_at,
        ingested_at=_times(run.listed_shards()),
        shards=manifest.ingested.shards if manifest.ingested else status.shards,
        standings=_standings(run) if status.state == "done" else [],
    )


def _times(files: Mapping[int, Listed]) -> dict[int, float]:
    return {number: file.modified for number, file in files.items()}


def _standings(run: RunDirectory) -> list[Standing]:
    """Returns the leaderboard that the run wrote; raises `UsageError` where its file was changed."""
    try:
        values = json.loads(read_bytes(run.path / JSON))
        return _STANDINGS.validate_python(values["models"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, ValidationError):
        raise UsageError(
            f"{run.path / JSON} is not as a run writes it; jobs/leaderboard.py --run {run.path} makes it again"
        ) from None
