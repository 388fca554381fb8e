"""Makes the leaderboard of a finished run anew."""

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.ensemble.consumers import replaced_together
from lmsys_ray.ensemble.join import join_shards
from lmsys_ray.ensemble.leaderboard.board import Leaderboard
from lmsys_ray.ensemble.leaderboard.output import LeaderboardOutput
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.evaluation.labelled_scores import scored_members
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.links import links_of
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import AnyPath


def make_leaderboard(run: RunDirectory, settings: Settings, asked: LeaderboardSettings, folder: AnyPath) -> Leaderboard:
    """Writes the leaderboard of `run`, whose settings are `settings`, into `folder`, and returns it.

    Raises `UsageError` where the run is not finished or its rows do not name their models, and as
    `LeaderboardOutput.write` does.
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
    counts = manifest.ingested if manifest else None
    shards, rows = (counts.shards, counts.rows) if counts else (0, 0)
    blend = settings.blending()
    links = links_of(run, settings, list(blend.weights), shards, rows)
    with replaced_together() as files:
        output = LeaderboardOutput(files, folder, asked, settings.cells, settings.outputs.escape_formulas)
        columns = [name for name in output.columns if name in (*CELLS, *run.carried())]
        for joined in join_shards(run, blend, links, settings.prior, shards, columns):
            output.add(joined)
        board = output.write()
    assert board is not None  # the setting is true
    return board


def _needed(asked: LeaderboardSettings) -> list[str]:
    return ["model_a", "model_b", *(["label"] if asked.outcomes == "labels" else [])]
