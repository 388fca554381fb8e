"""Makes the leaderboard of a finished run anew."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from lmsys_ray.ensemble.blend import aligned, with_prior
from lmsys_ray.ensemble.join import set_failed_aside
from lmsys_ray.ensemble.leaderboard.board import Leaderboard
from lmsys_ray.ensemble.leaderboard.output import LeaderboardOutput
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.evaluation.labelled_scores import scored_members
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.scoring.links import links_of
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import AnyPath


def make_leaderboard(run: RunDirectory, settings: Settings, asked: LeaderboardSettings, folder: AnyPath) -> Leaderboard:
    """Writes the leaderboard of `run`, whose settings are `settings`, into `folder`, and returns it.

    Raises `UsageError` where the run is not finished or its rows do not name their models, and as
    `LeaderboardOutput.finish` does.
    """
    scored_members(run, settings)
    manifest = run.read_manifest()
    run = RunDirectory(run.path, manifest.binding if manifest else run.binding)
    missing = [name for name in _needed(asked) if name not in run.carried()]
    if missing:
        raise UsageError(
            f"--run: the rows of {run.path} have no column {', '.join(missing)}; a leaderboard takes a run whose input "
            "has the columns model_a and model_b, and label for outcomes = labels"
        )
    asked = asked.model_copy(update={"write": True})
    output = LeaderboardOutput(folder, asked, settings.cells, settings.outputs.escape_formulas)
    counts = manifest.ingested if manifest else None
    shards, rows = (counts.shards, counts.rows) if counts else (0, 0)
    for shard, probabilities in _joined(run, settings, shards, rows, output.columns):
        output.add(shard, probabilities)
    board = output.finish()
    assert board is not None  # write is true
    return board


def _needed(asked: LeaderboardSettings) -> list[str]:
    return ["model_a", "model_b", *(["label"] if asked.outcomes == "labels" else [])]


def _joined(
    run: RunDirectory, settings: Settings, shards: int, rows: int, columns: Sequence[str]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields each shard with its blend [rows, 3]; rows that a member could not score are marked as rejected."""
    blend = settings.blending()
    links = links_of(run, settings, list(blend.weights), shards, rows)
    wanted = list(dict.fromkeys(["row", "id", "rejected", *columns]))

    def read(number: int) -> tuple[pa.Table, dict[str, pa.Table]]:
        return run.read_shard(number, wanted), {name: run.read_scores(name, number) for name in blend.weights}

    for number, (shard, members) in enumerate(prefetched(read, range(shards))):
        shard, members, _ = set_failed_aside(shard, members)
        probabilities = {
            name: aligned(shard, scores, str(run.score(name, number)), links.get(name))
            for name, scores in members.items()
        }
        yield shard, with_prior(shard, blend.of(probabilities), settings.prior)
