"""Both ways to the outputs of a reward model's sequences, and which rows they are measured on."""

from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ray.benchmark.rows import common_tokens
from lmsys_ray.benchmark.sides import reward
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.errors import UsageError
from tests.members.samples import CHAT
from tests.tiny_llama import make_model

LONG = "The quick brown fox jumps over the lazy dog, and then it sleeps beside the river until the morning. "


def ragged(*rows: list[int]) -> RaggedIds:
    return RaggedIds(np.array([*chain(*rows)], np.int32), np.cumsum([0, *map(len, rows)]))


def table(*rows: tuple[str, str, str]) -> pa.Table:
    prompts, a, b = zip(*rows, strict=True)
    return pa.table({"row": range(len(rows)), "prompt": prompts, "response_a": a, "response_b": b})


@pytest.fixture
def task(tmp_path: Path) -> BenchmarkTask:
    task = BenchmarkTask(str(tmp_path), 256, 2048, 4, 1, "wall", [0, 1, 2], 1)
    make_model(task.checkpoint)
    (task.checkpoint / "chat_template.jinja").write_text(CHAT)
    return task


def test_the_common_beginning_of_two_rows() -> None:
    first = ragged([1, 2, 3, 4], [1, 2], [5], [7, 8])
    second = ragged([1, 2, 9, 4, 5], [1, 2, 3], [6], [7, 8])
    assert common_tokens(first, second).tolist() == [2, 2, 0, 2]


def test_rows_are_those_with_a_prompt_of_half_the_tokens() -> None:
    a = ragged([1, 2, 3], [1, 2, 3, 4], [1, 2], [1, 2, 3])
    b = ragged([1, 2, 4], [1, 5, 6, 7], [3, 4], [1, 2, 3])
    assert reward.long_prompts(a, b).tolist() == [0]  # the last two sequences are equal


def test_each_prompt_is_used_once(task: BenchmarkTask) -> None:
    rows = table(
        (LONG, "yes", "no"), (LONG, "sure", "never"), (LONG * 2, "yes", "no"), ("why?", LONG, f"no. {LONG}"),
        (f"{LONG}why?", "yes", "no"),
    )  # fmt: skip
    assert reward.save_reward(rows, str(task.checkpoint), 2, task) == 3
    assert len(RaggedIds.load(task.reward_file)) == 4


def test_both_sides_compute_what_transformers_computes(task: BenchmarkTask) -> None:
    rows = table(*((f"{number} {LONG}", "yes " * number, f"no, {number}") for number in range(1, 6)))
    reward.save_reward(rows, str(task.checkpoint), 9, task)
    model = AutoModelForSequenceClassification.from_pretrained(task.checkpoint).eval()
    sequences = RaggedIds.load(task.reward_file)
    with torch.inference_mode():
        each = [torch.from_numpy(sequences[row])[None].long() for row in range(len(sequences))]
        expected = np.concatenate([model(ids).logits.numpy() for ids in each])
    apart, together = (reward.load(task, name)() for name in ("apart", "together"))
    for found in (apart, together):
        np.testing.assert_allclose(found["outputs"], expected, atol=1e-4)
        assert found["tokens"] == len(sequences.flat)
        assert 0 < found["allowed"] < 0.01
    shared = common_tokens(sequences.take(np.arange(5)), sequences.take(np.arange(5, 10))).sum()
    assert apart["computed"] == len(sequences.flat)
    assert together["computed"] == len(sequences.flat) - shared


def test_an_input_without_long_prompts_is_refused(task: BenchmarkTask) -> None:
    with pytest.raises(UsageError, match="--reward-rows: in no row of the input does the prompt have 50% of the tok"):
        reward.save_reward(table(("why?", LONG, f"no. {LONG}")), str(task.checkpoint), 2, task)
