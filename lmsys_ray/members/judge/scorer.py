"""The half of a judge that holds the model: token ids become the probabilities of its verdicts."""

from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import log_softmax, logsumexp

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.members.judge.encoder import JudgeEncoder
from lmsys_ray.members.judge.settings import JudgeSettings
from lmsys_ray.members.model_scorer import ModelScorer
from lmsys_ray.members.protocol import Scores


class JudgeScorer(ModelScorer):
    """Reads the logits of verdicts after encoded rows; raises `UsageError` where the model cannot be loaded or trusted.

    No text is generated: a verdict is one token, or the sum over the tokens that mean it.
    """

    def __init__(self, settings: JudgeSettings, threads: int | None = None) -> None:
        """Loads the model; `threads` overrides the setting."""
        self._encoder = JudgeEncoder(settings)
        self._verdicts = self._encoder.verdict_ids
        tokens = [token for ids in self._verdicts.values() for token in ids]
        super().__init__(settings, Wanted.logits_of(tokens), threads)

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        return [*self._encoder.notes, *super().notes]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of the model as it was loaded here, and of how rows are read."""
        return {**super().facts, **self._encoder.facts}

    def score(self, encoded: pa.Table) -> Scores:
        """Scores a table with the columns of `encoder.ENCODED`; raw outputs are the logits of the verdicts.

        Raises `UnscorableError` where logits are not finite, a row does not fit in the device's memory, or a token has
        no embedding.
        """
        ids = RaggedIds.from_arrow(encoded["input_ids"].combine_chunks())
        logits, usage = self.outputs(ids)
        self.check_finite(logits, encoded["row"].to_numpy())
        verdicts = self._summed(logits.astype(np.float64))
        probabilities = np.exp(log_softmax(verdicts, axis=1)).astype(np.float32)
        told = [(place, name) for place, name in enumerate(CLASSES) if self._verdicts[name]]
        raw = {f"logit_{name}": verdicts[:, place].astype(np.float32) for place, name in told}
        return Scores(probabilities, raw, ids.lengths.astype(np.int64), usage)

    def _summed(self, logits: np.ndarray) -> np.ndarray:
        """Returns the logit of each class [rows, 3], of the tokens that mean it; -inf for a class without a token."""
        verdicts = np.full((len(logits), len(CLASSES)), -np.inf)
        first = 0
        for place, name in enumerate(CLASSES):
            count = len(self._verdicts[name])
            if count:
                verdicts[:, place] = logsumexp(logits[:, first : first + count], axis=1)
            first += count
        return verdicts
