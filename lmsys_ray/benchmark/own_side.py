"""The sides that are this package: packed rows, in every number format on offer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lmsys_ray.benchmark.task import Task
from lmsys_ray.benchmark.worker import Side
from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama.encode import ENCODED
from lmsys_ray.members.llama.scorer import LlamaScorer
from lmsys_ray.members.usage import Usage


def load(task: Task, **changes: Any) -> Side:
    """Loads the Llama member's scorer with its default settings and `changes`."""
    sizes = {"max_length": task.max_length, "batch_tokens": task.batch_tokens}
    settings = LlamaSettings.model_validate({"kind": "llama", "model": str(task.checkpoint), **sizes, **changes})
    scorer = LlamaScorer(settings, threads=task.threads)
    rows = task.rows()
    ids = pa.LargeListArray.from_arrays(pa.array(rows.starts), pa.array(rows.ids))
    columns = [pa.array(range(len(rows)), pa.int64()), ids, pa.array(rows.lengths)]
    encoded = pa.Table.from_arrays(columns, schema=ENCODED)

    def run() -> dict[str, Any]:
        scorer.usage = Usage()
        probabilities = scorer.score(encoded)
        return {"probabilities": probabilities.tolist(), "slots": scorer.usage.slots + scorer.usage.shared}

    return run
