"""The half of a reward model that holds the model: token ids of both responses become two scores."""

from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.engine.ragged import RaggedIds, joined
from lmsys_ray.members.encoded import types_of
from lmsys_ray.members.model_scorer import ModelScorer
from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.reward.encoder import RewardEncoder
from lmsys_ray.members.reward.settings import RewardSettings


class RewardScorer(ModelScorer):
    """Scores both responses of encoded rows; raises `UsageError` where the model cannot be loaded or trusted.

    Both sequences of a row begin with its prompt, which is computed once where the engine shares prefixes.
    """

    def __init__(self, settings: RewardSettings, threads: int | None = None) -> None:
        """Loads the model; `threads` overrides the setting."""
        self._encoder = RewardEncoder(settings)
        self._sign = np.float32(settings.sign)
        super().__init__(settings, settings.wanted, threads)

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        return [*self._encoder.notes, *super().notes]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of the model as it was loaded here, and of how rows are read."""
        return {**super().facts, **self._encoder.facts}

    def score(self, encoded: pa.Table) -> Scores:
        """Scores a table with the columns of `encoder.ENCODED`.

        Raises `UnscorableError` where a score is not finite, a sequence does not fit in the device's memory, or a token
        has no embedding.
        """
        rows = encoded.num_rows
        ids = joined([RaggedIds.from_arrow(encoded[f"input_ids_{side}"].combine_chunks()) for side in "ab"])
        second = np.concatenate([encoded[f"second_{side}"].to_numpy() for side in "ab"])
        outputs, usage = self.outputs(ids, types_of(ids, second))
        scores = self._sign * outputs[:, 0].reshape(2, rows)
        self.check_finite(scores.T, encoded["row"].to_numpy())
        return Scores(
            None, {"score_a": scores[0], "score_b": scores[1]}, encoded["tokens"].to_numpy().astype(np.int64), usage
        )
