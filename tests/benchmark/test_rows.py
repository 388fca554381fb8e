"""The rows of a benchmark stand for the input that they come from."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.benchmark.rows import representative_rows
from lmsys_ray.engine.ragged import RaggedIds

LENGTHS = st.lists(st.integers(1, 4000), min_size=1, max_size=300).map(np.array)


@given(LENGTHS, st.integers(1, 400))
def test_rows_are_distinct_and_no_more_than_asked_for(lengths: np.ndarray, count: int) -> None:
    chosen = representative_rows(lengths, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(lengths))
    assert chosen.min() >= 0
    assert chosen.max() < len(lengths)


def test_few_rows_have_the_lengths_of_many() -> None:
    lengths = np.random.default_rng(1).lognormal(5.5, 0.8, 5000).astype(int) + 1
    few = lengths[representative_rows(lengths, 16)]
    assert abs(few.mean() / lengths.mean() - 1) < 0.05
    assert abs(np.median(few) / np.median(lengths) - 1) < 0.05
    assert list(few) != sorted(few)  # in random order, as an input is


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = RaggedIds(np.arange(10, dtype=np.int32), np.array([0, 3, 3, 10]))
    taken = rows.take(np.array([2, 0]))
    taken.save(tmp_path / "rows.npz")
    loaded = RaggedIds.load(tmp_path / "rows.npz")
    assert len(loaded) == 2
    assert loaded.lengths.tolist() == [7, 3]
    assert loaded[0].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert loaded[1].tolist() == [0, 1, 2]
    assert rows[1].tolist() == []
