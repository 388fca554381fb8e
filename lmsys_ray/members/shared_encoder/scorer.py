"""The half of a shared encoder that holds the model: token ids of both texts become P(a), P(b), P(tie)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from lmsys_ray import CLASSES
from lmsys_ray.checkpoints.averaged import load_averaged, read_head
from lmsys_ray.checkpoints.sources import model_directory
from lmsys_ray.engine.ragged import RaggedIds, distinct_rows, joined
from lmsys_ray.engine.usage import Usage
from lmsys_ray.members.model_scorer import ModelScorer
from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.shared_encoder.note import check_note
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings


class SharedEncoderScorer(ModelScorer):
    """Scores encoded rows; raises `UsageError` where the model cannot be loaded or trusted.

    The mean of A's and B's states side by side is the means of either side by side, so that each text is computed by
    itself, and only once where it occurs again, as it does with both orders of a row.
    """

    def __init__(self, settings: SharedEncoderSettings, threads: int | None = None) -> None:
        """Loads the model; `threads` overrides the setting."""
        check_note(settings)
        super().__init__(settings, lambda padding, plain: load_averaged(settings, settings.slots, plain), threads)
        directory = model_directory(settings.model, trust_pickle=settings.trust_pickle)
        weight, bias = read_head(directory, settings.model, len(self.classifier.columns))
        self._weight, self._bias = weight.numpy(), bias.numpy()
        self._marks = settings.preset is not None

    def score(self, encoded: pa.Table) -> Scores:
        """Scores a table with the columns of `encoder.ENCODED`.

        Raises `UnscorableError` where logits are not finite, a text does not fit in the device's memory, or a token has
        no embedding.
        """
        rows = encoded.num_rows
        ids = joined([RaggedIds.from_arrow(encoded[f"input_ids_{side}"].combine_chunks()) for side in "ab"])
        first, place = distinct_rows(ids)
        means, usage = self.outputs(ids.take(first))
        usage.include(_not_computed(ids.lengths, first))
        logits = head_logits(means[place[:rows]], means[place[rows:]], self._weight, self._bias)
        self.check_finite(logits, encoded["row"].to_numpy())
        probabilities: np.ndarray = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
        raw = {f"logit_{name}": logits[:, column] for column, name in enumerate(CLASSES)}
        if self._marks:
            raw["blanked"] = encoded["blanked"].to_numpy()
        return Scores(probabilities, raw, encoded["tokens"].to_numpy().astype(np.int64), usage)


def head_logits(a: np.ndarray, b: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Returns float32 logits [rows, 3] of the mean states of A's and B's texts, [rows, dim] each."""
    pairs = np.concatenate([a, b], axis=1)
    logits: np.ndarray = pairs @ weight.T + bias
    return logits


def _not_computed(lengths: np.ndarray, first: np.ndarray) -> Usage:
    """Returns the usage of texts that occurred before: their tokens were not computed again."""
    rows, tokens = len(lengths) - len(first), int(lengths.sum() - lengths[first].sum())
    return Usage(rows=rows, tokens=tokens, shared=tokens)
