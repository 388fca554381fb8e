"""What an epoch of LoRA training shows: every row once, in either order, within the token budget."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.members.classifier.training.examples import (
    Examples,
    encode_examples,
    epoch_batches,
    epoch_swaps,
    plan_steps,
)
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.schedule import learning_rate_factor
from tests.tiny_llama import make_backbone

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200).map(lambda values: np.array(values, np.int64))


def settings(model: Path | str = "base", **changes: object) -> TrainingSettings:
    return TrainingSettings(**{"input": ["rows.csv"], "output": "out", "model": str(model), **changes})


@given(LENGTHS, st.integers(16, 1000), st.integers(0, 5))
def test_each_epoch_takes_every_row_once_within_the_budget(lengths: np.ndarray, budget: int, epoch: int) -> None:
    batches = epoch_batches(lengths, budget, (3, epoch))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


def test_epochs_differ_and_repeat_with_the_same_seed() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 300)
    first, again, second = (np.concatenate(epoch_batches(lengths, 1000, (3, epoch))) for epoch in (0, 0, 1))
    assert (first == again).all()
    assert (first != second).any()


def test_batches_hold_rows_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 2000)
    batches = epoch_batches(lengths, 2000, (3, 0))
    slots = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert lengths.sum() / slots > 0.9


def test_two_epochs_show_each_row_in_both_orders() -> None:
    first, second = (epoch_swaps(1000, 0.5, (3, epoch)) for epoch in (0, 1))
    assert (first == ~second).all()
    assert 400 < first.sum() < 600
    assert not epoch_swaps(1000, 0.0, (3, 0)).any()
    assert epoch_swaps(1000, 1.0, (3, 1)).all()


@given(LENGTHS, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.5]))
def test_every_step_has_work_for_every_worker(
    lengths: np.ndarray, workers: int, accumulate: int, epochs: float
) -> None:
    chosen = settings(batch_tokens=600, accumulate=accumulate, epochs=epochs)
    steps = plan_steps(lengths, chosen, workers)
    assert all(len(step) == workers * accumulate for step in steps)
    shown = sum(len(batch.rows) for step in steps for batch in step)
    assert shown <= math.ceil(epochs) * len(lengths)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    base = make_backbone(tmp_path_factory.mktemp("base"))
    table = pa.table(
        {
            "row": pa.array([0, 1, 2], pa.int64()),
            "prompt": ['["why?"]', '["how?"]', '["when?"]'],
            "response_a": ['["first"]', '["because of the light"]', '[""]'],
            "response_b": ['["second answer"]', '["no"]', '["now"]'],
        }
    )
    return encode_examples(table, np.array([0, 1, 2]), np.arange(3), settings(base, max_length=128).scoring())


def test_a_swapped_row_is_the_row_with_its_answers_exchanged(examples: Examples) -> None:
    rows, swap = np.array([0, 1, 2]), np.array([True, True, True])
    ids, labels = examples.batch(rows, swap)
    straight, unchanged = examples.batch(rows, ~swap)
    assert labels.tolist() == [1, 0, 2]
    assert unchanged.tolist() == [0, 1, 2]
    for there, back in zip(ids, straight, strict=True):
        assert sorted(there) == sorted(back)
        assert list(there) != list(back)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[10] == 1
    assert factors[100] == pytest.approx(0)


def test_special_tokens_in_a_cell_are_text_unless_training_is_told_to_parse_them(tmp_path: Path) -> None:
    base = make_backbone(tmp_path / "base")
    cells = {"prompt": ["<|end|>"], "response_a": ["a"], "response_b": ["b"]}
    table = pa.table({"row": pa.array([0], pa.int64()), **cells})
    for changes, parsed in (({}, False), ({"special_tokens": "parse"}, True), ({"append_eos": True}, False)):
        member = settings(base, max_length=128, **changes).scoring()
        row = encode_examples(table, np.array([0]), np.arange(1), member).straight[0]
        assert list(row[1:]).count(2) == parsed + member.append_eos
        assert member.special_tokens == changes.get("special_tokens", "text")
