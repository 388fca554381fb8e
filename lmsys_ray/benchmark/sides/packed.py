"""The sides of this package: packed rows, in every number format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.members.classifier.encoder import ENCODED
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings


def load(task: BenchmarkTask, **changes: Any) -> Side:
    """Loads the classifier's scorer with its default settings and `changes`."""
    sizes = {"max_length": task.max_length, "batch_tokens": task.batch_tokens}
    settings = ClassifierSettings.model_validate(
        {"kind": "classifier", "model": str(task.checkpoint), **sizes, **changes}
    )
    scorer = ClassifierScorer(settings, threads=task.threads)
    rows = task.rows()
    ids = pa.LargeListArray.from_arrays(pa.array(rows.starts), pa.array(rows.flat))
    columns = [pa.array(range(len(rows)), pa.int64()), ids, pa.array(rows.lengths)]
    encoded = pa.Table.from_arrays(columns, schema=ENCODED)

    def run() -> dict[str, Any]:
        scores = scorer.score(encoded)
        probabilities = np.asarray(scores.probabilities).tolist()
        return {"probabilities": probabilities, "slots": scores.usage.slots + scores.usage.shared}

    return run
