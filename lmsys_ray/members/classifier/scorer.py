"""The half of the classifier that holds the model: token ids become P(a), P(b), P(tie)."""

import numpy as np
import pyarrow as pa
import torch

from lmsys_ray.engine.models.encoder import TransformersEncoder
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.encoded import types_of
from lmsys_ray.members.model_scorer import ModelScorer
from lmsys_ray.members.protocol import Scores


class ClassifierScorer(ModelScorer):
    """Scores encoded rows; raises `UsageError` where the model cannot be loaded or trusted."""

    def __init__(self, settings: ClassifierSettings, threads: int | None = None) -> None:
        """Loads the model; `threads` overrides the setting."""
        super().__init__(settings, settings.wanted, threads)
        if not isinstance(settings.template, str) and not isinstance(self.classifier.backbone, TransformersEncoder):
            raise UsageError(
                f"template: two texts are for encoders such as DeBERTa, and {settings.model} is none; give one text"
            )

    def score(self, encoded: pa.Table) -> Scores:
        """Scores a table with the columns of `ENCODED`, or of pairs of texts with those of `ENCODED_PAIRS`.

        Raises `UnscorableError` where logits are not finite, a single row does not fit in the device's memory, or a
        token has no embedding.
        """
        ids = RaggedIds.from_arrow(encoded["input_ids"].combine_chunks())
        second = encoded["second"].to_numpy() if "second" in encoded.column_names else None
        logits, usage = self.outputs(ids, None if second is None else types_of(ids, second))
        probabilities: np.ndarray = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
        self.check_finite(probabilities, encoded["row"].to_numpy())
        return Scores(probabilities, tokens=ids.lengths.astype(np.int64), usage=usage)
