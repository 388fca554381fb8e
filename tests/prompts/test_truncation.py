"""Budgets of fields and cuts in their middle, on token ids alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.prompts import truncation

ELLIPSIS = np.array([-7, -8])
SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=4)


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, list[tuple[int, int]], int]:
    """A row of distinct ids with fields between literals, and a length that holds the literals at least."""
    sizes = draw(SIZES)
    literals = draw(st.lists(st.integers(0, 5), min_size=len(sizes) + 1, max_size=len(sizes) + 1))
    fields, position = [], 0
    for literal, size in zip(literals, sizes, strict=False):
        fields.append((position + literal, position + literal + size))
        position += literal + size
    ids = np.arange(position + literals[-1])
    return ids, fields, draw(st.integers(sum(literals), len(ids) + 5))


def spread(shares: int) -> list[float]:
    return [1.0 + (i % 2) for i in range(shares)]


@given(SIZES, st.integers(0, 250))
def test_the_whole_budget_is_given_out_and_no_field_gets_more_than_it_has(sizes: list[int], budget: int) -> None:
    kept = truncation.allocate(sizes, budget, spread(len(sizes)))
    assert sum(kept) == min(budget, sum(sizes))
    assert all(0 <= k <= size for k, size in zip(kept, sizes, strict=True))


@given(SIZES, st.integers(1, 250))
def test_a_field_is_cut_only_below_its_share_of_what_the_short_ones_leave(sizes: list[int], budget: int) -> None:
    shares = spread(len(sizes))
    kept = truncation.allocate(sizes, budget, shares)
    levels = [k / share for k, share in zip(kept, shares, strict=True)]
    cut = [i for i, size in enumerate(sizes) if kept[i] < size]
    for i in cut:  # no other field has more for its share, rounding apart
        assert all(levels[i] >= level - 2 for level in levels)


def test_a_short_field_gives_its_spare_tokens_to_the_long_ones() -> None:
    assert truncation.allocate([5, 500, 500], 105, [1, 2, 2]) == [5, 50, 50]
    assert truncation.allocate([500, 500, 500], 100, [1, 2, 2]) == [20, 40, 40]


@given(rows())
def test_balanced_keeps_every_literal_and_both_ends_of_every_field(row: tuple) -> None:
    ids, fields, length = row
    shares = spread(len(fields))
    cut = truncation.balanced(ids, fields, length, ELLIPSIS, shares)
    assert len(cut) == min(length, len(ids))
    inside = np.zeros(len(ids), bool)
    for start, end in fields:
        inside[start:end] = True
    kept = cut[cut >= 0]
    assert set(ids[~inside]) <= set(kept)
    assert (np.diff(kept) > 0).all()  # nothing is moved or repeated
    budgets = truncation.allocate([end - start for start, end in fields], length - int((~inside).sum()), shares)
    for (start, end), tokens in zip(fields, budgets, strict=True):
        if len(ELLIPSIS) + 2 <= tokens < end - start:
            assert {start, end - 1} <= set(kept)
            assert len(set(range(start, end)) & set(kept)) == tokens - len(ELLIPSIS)
        elif tokens < end - start:
            assert set(range(start, start + tokens)) <= set(kept)


@given(rows())
def test_rows_that_fit_stay_as_they_are(row: tuple) -> None:
    ids, fields, _ = row
    shares = spread(len(fields))
    np.testing.assert_array_equal(truncation.balanced(ids, fields, len(ids), ELLIPSIS, shares), ids)
    np.testing.assert_array_equal(truncation.right(ids, len(ids)), ids)


def test_a_cut_field_reads_head_ellipsis_tail() -> None:
    cut = truncation.balanced(np.arange(20), [(2, 18)], 11, ELLIPSIS, [1])
    assert cut.tolist() == [0, 1, 2, 3, 4, -7, -8, 16, 17, 18, 19]
