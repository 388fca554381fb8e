"""The leaderboard as an output of a run: it takes joined shards one after another, and writes its files at the end."""

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.ensemble.leaderboard.battles import BattleCollector
from lmsys_ray.ensemble.leaderboard.board import Leaderboard, leaderboard
from lmsys_ray.ensemble.leaderboard.files import CSV, remove_leaderboard, write_leaderboard
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.ensemble.leaderboard.style import FEATURES, style_differences
from lmsys_ray.errors import RunError
from lmsys_ray.storage.files import AnyPath

_NO_NAME = pa.scalar(None, pa.string())
_LABELS = np.vstack([np.eye(3), np.zeros(3)])
"""The outcomes of the classes, and of no label."""


class LeaderboardOutput:
    """Collects battles from shards and writes leaderboard.csv and leaderboard.json into a folder.

    `cells` is the form of raw cells, which style control reads.
    """

    def __init__(
        self,
        files: OutputFiles,
        folder: AnyPath,
        settings: LeaderboardSettings,
        cells: CellForm = "auto",
        escape_formulas: bool = False,
    ) -> None:
        self._files, self._folder = files, folder
        self._settings, self._cells, self._escape = settings, cells, escape_formulas
        self._collector = BattleCollector()

    @property
    def path(self) -> AnyPath:
        """The file that it becomes, beside one of JSON."""
        return self._folder / CSV

    @property
    def columns(self) -> list[str]:
        """The columns that `add` reads of a shard, as far as it has them."""
        if not self._settings.write:
            return []
        style = ["response_a", "response_b"] if FEATURES[self._settings.style] else []
        label = ["label"] if self._settings.outcomes == "labels" else []
        return ["model_a", "model_b", *label, *style]

    def add(self, joined: JoinedShard) -> None:
        """Adds a shard with the `columns`.

        A row that is `rejected`, by ingest or by a member, has no outcome of its own, but may have a label.
        """
        if not self._settings.write:
            return
        shard, probabilities = joined.table, joined.blended
        model_a, model_b = (_column(shard, name, _NO_NAME) for name in ("model_a", "model_b"))
        rejected = shard["rejected"].to_numpy(zero_copy_only=False)
        style = None
        if FEATURES[self._settings.style] and "model_a" in shard.column_names:
            responses = (shard["response_a"], shard["response_b"])
            style = style_differences(self._settings.style, *responses, self._cells)
        if self._settings.outcomes == "expected":
            self._collector.add(model_a, model_b, probabilities, {"unscored": rejected}, style)
            return
        label = _column(shard, "label", pa.scalar(None, pa.int8())).fill_null(3).to_numpy()
        unusable = {"unlabelled": label == 3, **({} if style is None else {"unscored": rejected})}
        self._collector.add(model_a, model_b, _LABELS[label], unusable, style)

    def finish(self) -> list[str]:
        """Writes the files as `write` does; returns a line that names them, none where there are none."""
        return [f"leaderboard: {self.path}"] if self.write() else []

    def write(self) -> Leaderboard | None:
        """Writes the files, which take on their names with the other `files`, and returns what they hold.

        Where none is made (the setting is false, or `auto` and no row is a battle of two models), earlier files are to
        be removed and None is returned. Raises `RunError` where the setting is true but there is no battle, and for an
        anchor without strength.
        """
        battles, asked = self._collector.battles(), self._settings.write
        if not asked or (asked == "auto" and not len(battles.first)):
            remove_leaderboard(self._files, self._folder)
            return None
        if not len(battles.first):
            counted = ", ".join(f"{reason}: {rows:,}" for reason, rows in battles.left_out.items())
            raise RunError(
                f"no row of {self._folder} is a battle for a leaderboard ({counted}); the columns model_a and model_b "
                "name the models, and leaderboard.outcomes what is counted"
            )
        board = leaderboard(battles, self._settings)
        write_leaderboard(board, self._files, self._folder, self._escape)
        return board


def _column(shard: pa.Table, name: str, missing: pa.Scalar) -> pa.ChunkedArray:
    """Returns a column, or nulls where the shard does not have it."""
    if name in shard.column_names:
        return shard[name]
    return pa.chunked_array([pa.repeat(missing, shard.num_rows)])
