"""Rows that begin alike share what they begin with, and nothing else."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.engine.prefixes import find_prefixes

STEMS = [list(range(100, 100 + length)) for length in (0, 5, 20, 40)]
ROW = st.builds(
    lambda stem, shorter, rest: STEMS[stem][: len(STEMS[stem]) - shorter] + rest,
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
)


def found(rows: list[list[int]], most_tokens: int) -> tuple[list[list[int]], list[int]]:
    starts = np.cumsum([0, *map(len, rows)])
    units, shared = find_prefixes(np.array([token for row in rows for token in row], np.int32), starts, most_tokens)
    return [unit.tolist() for unit in units], shared.tolist()


@given(st.lists(ROW, max_size=20), st.integers(30, 200))
def test_each_row_is_in_one_unit_and_shares_what_the_row_before_it_begins_with(
    rows: list[list[int]], most_tokens: int
) -> None:
    units, shared = found(rows, most_tokens)
    assert sorted(row for unit in units for row in unit) == list(range(len(rows)))
    for unit in units:
        assert shared[unit[0]] == 0
        assert len(unit) <= 2 or sum(len(rows[row]) - shared[row] for row in unit) <= most_tokens
        for before, row in pairwise(unit):
            assert rows[before][: shared[row]] == rows[row][: shared[row]]
            assert 16 <= shared[row] < len(rows[row])


def test_two_orders_share_their_prompt() -> None:
    prompt, first, second = [7] * 30, [1, 2, 3], [4, 5]
    assert found([[9] * 40, prompt + first + second, prompt + second + first], 1000) == ([[1, 2], [0]], [0, 0, 30])


def test_the_same_row_twice_keeps_its_last_token() -> None:
    assert found([[5] * 50, [5] * 50], 10) == ([[0, 1]], [0, 49])


def test_a_few_tokens_of_a_template_are_not_shared() -> None:
    assert found([[1, 2, 3] + [4] * 40, [1, 2, 3] + [5] * 40], 1000)[1] == [0, 0]


def test_no_rows_make_no_units() -> None:
    assert found([], 100) == ([], [])
