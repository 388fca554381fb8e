"""A reward model's rows: both responses in one call, which computes their prompt once, or a call for each response.

The head is that of the benchmark's classifier: a head costs nothing beside the backbone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.benchmark.rows import common_tokens, representative_rows
from lmsys_ray.benchmark.side_process import Side
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.engine.ragged import RaggedIds, joined
from lmsys_ray.engine.usage import Usage
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.model_scorer import ModelScorer
from lmsys_ray.members.reward.encoder import RewardEncoder
from lmsys_ray.members.reward.settings import RewardSettings

LEAST_SHARE = 0.5
"""The share of a row's tokens, those of both sequences, that its prompt must be for the row to be used."""


def save_reward(conversations: pa.Table, model: str, count: int, task: BenchmarkTask) -> int:
    """Writes the sequences of `count` rows with long prompts, as the chat template of `model` writes them.

    Returns how many rows have such a prompt, one row for each prompt. Raises `UsageError` where none has, or the model
    has no chat template.
    """
    settings = RewardSettings.model_validate(
        {"kind": "reward", "model": model, "input": "chat", "max_length": task.max_length}
    )
    encoded = RewardEncoder(settings).encode(conversations)
    a, b = (RaggedIds.from_arrow(encoded[f"input_ids_{side}"].combine_chunks()) for side in "ab")
    found = long_prompts(a, b)
    prompts = np.array(conversations["prompt"].to_pylist(), object)[found]
    found = found[np.sort(np.unique(prompts, return_index=True)[1])]
    if not len(found):
        raise UsageError(
            f"--reward-rows: in no row of the input does the prompt have {LEAST_SHARE:.0%} of the tokens of both "
            "sequences; give an --input with longer prompts"
        )
    chosen = found[representative_rows((a.lengths + b.lengths)[found], count)]
    joined([a.take(chosen), b.take(chosen)]).save(task.reward_file)
    return len(found)


def long_prompts(a: RaggedIds, b: RaggedIds) -> np.ndarray:
    """Returns the indices of rows whose common beginning is a large share of the tokens of both sequences.

    Rows whose sequences are equal are left out: nothing but the prompt should be shared.
    """
    common, tokens = common_tokens(a, b), a.lengths + b.lengths
    return np.flatnonzero((2 * common >= LEAST_SHARE * tokens) & (2 * common < tokens))


def load(task: BenchmarkTask, name: str) -> Side:
    """Returns a side that computes all sequences, `together` in one call or `apart`, those of A and then those of B.

    It reports outputs [sequences, labels], first those of all A; the largest difference of an output that the check of
    the model allows; and how many tokens the sequences have and how many were computed.
    """
    sizes = {"max_length": task.max_length, "batch_tokens": task.batch_tokens}
    settings = ClassifierSettings.model_validate(
        {"kind": "classifier", "model": str(task.checkpoint), "quantization": "none", **sizes}
    )
    scorer = ModelScorer(settings, settings.wanted, task.threads)
    allowed = scorer.facts["allowed_logit_difference"]
    sequences = RaggedIds.load(task.reward_file)
    half = len(sequences) // 2
    calls = [sequences]
    if name == "apart":
        calls = [sequences.take(np.arange(half)), sequences.take(np.arange(half, 2 * half))]

    def run() -> dict[str, Any]:
        outputs, usage = [], Usage()
        for ids in calls:
            found, used = scorer.outputs(ids)
            outputs.append(found)
            usage.include(used)
        counts = {"tokens": usage.tokens, "computed": usage.slots}
        return {"outputs": np.concatenate(outputs).tolist(), "allowed": allowed, **counts}

    return run
