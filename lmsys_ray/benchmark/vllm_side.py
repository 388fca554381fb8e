"""vLLM as a pooling engine, in whatever environment it is installed; of ours it needs what needs numpy alone.

On a CPU it is to be run in one process, since that is what is measured, with its threads bound by
VLLM_CPU_OMP_THREADS_BIND and Intel's libiomp5 loaded first; torchvision, torchaudio and torchcodec, which its package
brings and a CPU build of torch cannot load, must not be installed beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmsys_ray.benchmark.task import Task
from lmsys_ray.benchmark.worker import Side


def load(task: Task) -> Side:
    """Starts the engine; each call of what comes back hands it all rows at once."""
    import torch
    from vllm import LLM

    cuda = torch.cuda.is_available()
    engine = LLM(
        model=str(task.checkpoint),
        runner="pooling",
        dtype="auto" if cuda else "float32",  # the checkpoint's own 16 bits
        max_model_len=task.max_length + 1,
        enable_prefix_caching=False,
        disable_log_stats=True,
        **({"gpu_memory_utilization": 0.8} if cuda else {}),
    )
    rows = task.rows()
    prompts = [{"prompt_token_ids": rows[i].tolist()} for i in range(len(rows))]

    def run() -> dict[str, Any]:
        outputs = engine.classify(prompts, use_tqdm=False)
        probabilities = np.array([output.outputs.probs for output in outputs])[:, task.columns]
        return {"probabilities": probabilities.tolist(), "slots": int(rows.lengths.sum())}

    return run
