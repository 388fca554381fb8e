"""vLLM as a pooling engine, in the environment where it is installed; from this package it needs only what needs numpy.

On a CPU it runs in one process, which is measured, with threads bound by VLLM_CPU_OMP_THREADS_BIND and Intel's libiomp5
loaded first. torchvision, torchaudio and torchcodec must not be installed: its package requires them, but a CPU build
of torch cannot load them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask


def load(task: BenchmarkTask) -> Side:
    """Starts the engine; returns a side that gives it all rows at once."""
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
