"""The loops over padded batches that users of transformers write themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.engine.devices import choose_dtype
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.quiet import quiet_libraries

Batching = Literal["notebook", "dynamic", "sorted", "reference"]


def load(task: BenchmarkTask, batching: Batching) -> Side:
    """Loads the checkpoint; returns a side that scores all rows.

    `notebook` is the reference notebook's loop: every row padded to `max_length`, four at a time in file order, on a
    GPU with bitsandbytes' int8 and fp16. `dynamic` pads to the longest row of a batch, `sorted` also puts rows of
    similar length together, both in the GPU's 16-bit type. `reference` scores each row alone in float32.
    """
    cuda = torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": torch.float32 if batching == "reference" else choose_dtype("auto")}
    if batching == "notebook" and cuda:
        eight_bits = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score"])
        options = {"dtype": torch.float16, "quantization_config": eight_bits}
    with quiet_libraries():
        model = AutoModelForSequenceClassification.from_pretrained(
            task.checkpoint, device_map={"": 0 if cuda else "cpu"}, **options
        )
    model.eval()
    rows = task.rows()
    if batching == "reference":
        rows = rows.take(np.arange(min(task.checked, len(rows))))
    batches = plan(rows.lengths, batching, task.batch_rows)
    width = task.max_length if batching == "notebook" else None

    def run() -> dict[str, Any]:
        probabilities, slots = np.empty((len(rows), 3), np.float32), 0
        for batch in batches:
            inputs = padded(rows, batch, width, model.config.pad_token_id)
            slots += inputs["input_ids"].numel()
            with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=batching == "notebook" and cuda):
                logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits.float().cpu()
            probabilities[batch] = torch.softmax(logits[:, task.columns], dim=-1).numpy()
        return {"probabilities": probabilities.tolist(), "slots": slots}

    return run


def plan(lengths: np.ndarray, batching: Batching, batch_rows: int) -> list[np.ndarray]:
    """Returns batches as arrays of indices into `lengths` [rows]."""
    size = {"notebook": 4, "reference": 1}.get(batching, batch_rows)
    order = np.argsort(-lengths, kind="stable") if batching == "sorted" else np.arange(len(lengths))
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(
    rows: RaggedIds, batch: Sequence[int] | np.ndarray, width: int | None, pad_id: int
) -> dict[str, torch.Tensor]:
    """Returns `input_ids` and `attention_mask`, int64 [rows, width], padded on the right; None is the longest row."""
    width = width or int(rows.lengths[batch].max())
    ids = np.full((len(batch), width), pad_id, np.int64)
    mask = np.zeros((len(batch), width), np.int64)
    for place, row in enumerate(batch):
        ids[place, : len(rows[row])] = rows[row]
        mask[place, : len(rows[row])] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
