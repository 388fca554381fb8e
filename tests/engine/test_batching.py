"""Plans of micro-batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.engine import batching
from lmsys_ray.engine.usage import Usage

LENGTHS = st.lists(st.integers(1, 64), max_size=80).map(lambda values: np.array(values, np.int64))
PADDINGS = st.sampled_from(["none", "longest", "max_length"])


@given(LENGTHS, st.integers(1, 300), PADDINGS)
def test_every_row_is_in_exactly_one_micro_batch(lengths: np.ndarray, budget: int, padding: batching.Padding) -> None:
    batches = batching.plan(lengths, budget, padding, max_length=64)
    rows = np.concatenate(batches) if batches else np.empty(0, int)
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)


@given(LENGTHS, st.integers(1, 300), PADDINGS)
def test_no_micro_batch_of_several_rows_exceeds_the_budget(
    lengths: np.ndarray, budget: int, padding: batching.Padding
) -> None:
    for batch in batching.plan(lengths, budget, padding, max_length=64):
        assert len(batch) == 1 or batching.slots(lengths[batch], padding, max_length=64) <= budget


@given(LENGTHS, st.integers(1, 300))
def test_even_micro_batches_hold_every_row_once_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    batches = batching.plan_evenly(lengths, budget)
    rows = np.concatenate(batches) if batches else np.empty(0, int)
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)
    loads = [int(lengths[batch].sum()) for batch in batches]
    assert all(len(batch) == 1 or load <= budget for batch, load in zip(batches, loads, strict=True))
    assert loads == sorted(loads, reverse=True)


@pytest.mark.parametrize(
    ("rows", "cores"),
    # Three rows to a micro-batch, as of 48 rows on 16 cores, cannot be levelled so well.
    [(16, 2), (16, 4), (48, 2), (48, 4), (48, 8), *((n, cores) for n in (64, 128, 400) for cores in (2, 4, 8, 16))],
)
def test_even_micro_batches_keep_cores_busy_to_the_end(rows: int, cores: int) -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5.6, 0.6, rows).astype(int) + 8, 512)

    batches = batching.plan_evenly(lengths, 2048)
    ends = [0] * cores
    for batch in batches:
        ends[int(np.argmin(ends))] += int(lengths[batch].sum())
    assert sum(ends) / cores / max(ends) > 0.95
    assert lengths.sum() / len(batches) > 0.5 * 2048


def test_a_few_short_rows_stay_together() -> None:
    assert len(batching.plan_evenly(np.full(10, 30), 1024)) == 1


@given(LENGTHS, st.integers(64, 300))
def test_best_fit_never_leaves_two_micro_batches_that_would_fit_in_one(lengths: np.ndarray, budget: int) -> None:
    sums = [int(lengths[batch].sum()) for batch in batching.plan(lengths, budget, "none", max_length=64)]
    assert len(sums) < 2 or sum(sorted(sums)[:2]) > budget


def test_best_fit_puts_a_row_where_the_least_room_is_left() -> None:
    batches = batching.plan(np.array([60, 50, 40, 30, 20]), 100, "none", max_length=64)
    assert [sorted(batch.tolist()) for batch in batches] == [[0, 2], [1, 3, 4]]


def test_max_length_keeps_the_order_of_the_rows_as_the_notebook_does() -> None:
    batches = batching.plan(np.arange(1, 11), 8192, "max_length", max_length=2048)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_longest_first_so_that_nothing_long_comes_last() -> None:
    lengths = np.array([3, 50, 7, 41, 12])
    first = [batch[0] for batch in batching.plan(lengths, 60, "longest", max_length=64)]
    assert lengths[first].tolist() == sorted(lengths[first].tolist(), reverse=True)


@pytest.mark.parametrize(("padding", "expected"), [("none", 60), ("longest", 90), ("max_length", 192)])
def test_slots_count_the_padding(padding: batching.Padding, expected: int) -> None:
    assert batching.slots(np.array([10, 20, 30]), padding, max_length=64) == expected


def test_usage_adds_up_to_shares_of_padding_and_of_the_budget() -> None:
    usage = Usage()
    assert usage.padding_share == usage.filled_share == usage.shared_share == 0
    usage.add(np.array([10, 20]), slots=40, budget=60)
    usage.add(np.array([30]), slots=40, budget=60)
    assert (usage.rows, usage.tokens, usage.slots, usage.micro_batches) == (3, 60, 80, 2)
    assert usage.padding_share == 0.25
    assert usage.filled_share == pytest.approx(2 / 3)
    other = Usage()
    other.add(np.array([100]), slots=70, budget=60, shared=30)  # alone in a micro-batch beyond the budget
    usage.include(other)
    assert usage.padding_share == pytest.approx(1 - 130 / 150)
    assert usage.filled_share == pytest.approx(150 / 190)
    assert usage.shared_share == pytest.approx(30 / 160)


def test_waste_on_long_tailed_lengths() -> None:
    """Log-normal lengths, as conversations have: packing wastes no slot, sorting little, padding to the cap most."""
    lengths = np.minimum(np.random.default_rng(0).lognormal(5.2, 0.8, 400).astype(int) + 8, 512)
    taken = {}
    for padding in ("none", "longest", "max_length"):
        batches = batching.plan(lengths, 2048, padding, max_length=512)
        taken[padding] = sum(batching.slots(lengths[batch], padding, 512) for batch in batches)
    assert taken["none"] == lengths.sum()
    assert taken["longest"] < 1.15 * lengths.sum()
    assert taken["max_length"] == 400 * 512
    assert len(batching.plan(lengths, 2048, "none", 512)) <= int(np.ceil(lengths.sum() / 2048)) + 1
