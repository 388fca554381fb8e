"""An encoder's classifier on sorted micro-batches, beside rows that are all padded to the longest length allowed.

The encoder has MiniLM's sizes and random weights: seconds do not depend on their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray.benchmark.checkpoint import ENCODER_LENGTH, save_encoder
from lmsys_ray.benchmark.rows import representative_rows
from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings


def save_encoder_rows(conversations: pa.Table, model: str, count: int, task: BenchmarkTask) -> None:
    """Writes the encoder, with the tokenizer of `model`, and `count` rows as the kind `classifier` reads them."""
    save_encoder(model, task.encoder)
    encoded = ClassifierEncoder(_settings(task)).encode(conversations)
    chosen = representative_rows(encoded["tokens"].to_numpy(), count)
    pq.write_table(encoded.take(chosen), task.encoder_file)


def load(task: BenchmarkTask, name: str) -> Side:
    """Returns a side that scores all rows, `sorted` by the kind's default settings or `padded` to `ENCODER_LENGTH`.

    It reports probabilities [rows, 3], the largest difference that the check of the model allows in its logits, and
    how many tokens the rows have and how many slots were computed, padding included.
    """
    scorer = ClassifierScorer(_settings(task, **({"padding": "max_length"} if name == "padded" else {})), task.threads)
    encoded = pq.read_table(task.encoder_file)
    allowed = scorer.facts["allowed_logit_difference"]

    def run() -> dict[str, Any]:
        scores = scorer.score(encoded)
        counts = {"tokens": scores.usage.tokens, "computed": scores.usage.slots}
        return {"outputs": np.asarray(scores.probabilities).tolist(), "allowed": allowed, **counts}

    return run


def _settings(task: BenchmarkTask, **changes: Any) -> ClassifierSettings:
    sizes = {"max_length": ENCODER_LENGTH, "batch_tokens": task.batch_tokens}
    return ClassifierSettings.model_validate({"kind": "classifier", "model": str(task.encoder), **sizes, **changes})
