"""Folds never share a prompt, whatever the rows; each holds its part of every class."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.data.folds import grouped_folds, prompt_groups
from lmsys_ray.errors import RunError


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(2, 5), st.integers(0, 100))
def test_no_prompt_is_on_both_sides(data: st.DataObject, folds: int, seed: int) -> None:
    prompts = data.draw(st.lists(st.integers(0, 30), min_size=40, max_size=80).filter(lambda p: len(set(p)) >= folds))
    labels = np.arange(len(prompts)) % 3
    variants = data.draw(
        st.lists(st.sampled_from(["{}", " {} ", "{}\n"]), min_size=len(prompts), max_size=len(prompts))
    )
    cells = [json.dumps([variant.format(f"Prompt {p}")]) for variant, p in zip(variants, prompts, strict=True)]
    fold = grouped_folds(labels, prompt_groups(cells, "auto"), folds, seed)
    by_prompt = {prompt: {int(f) for f, p in zip(fold, prompts, strict=True) if p == prompt} for prompt in prompts}
    assert all(len(numbers) == 1 for numbers in by_prompt.values())
    assert set(fold) <= set(range(folds))


def test_classes_are_spread_evenly_over_the_folds() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    fold = grouped_folds(labels, np.arange(1000) // 2, 5)
    shares = np.array([np.bincount(labels[fold == number], minlength=3) for number in range(5)])
    assert np.all(np.abs(shares - [100, 60, 40]) <= 3)


def test_the_same_seed_cuts_the_same_folds() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 2
    assert np.array_equal(grouped_folds(labels, groups, 4, seed=1), grouped_folds(labels, groups, 4, seed=1))
    assert not np.array_equal(grouped_folds(labels, groups, 4, seed=1), grouped_folds(labels, groups, 4, seed=2))


def test_prompts_are_compared_without_case_white_space_and_spelling_of_the_cell() -> None:
    cells = ['["Say  hello"]', "say hello", '["say\\nHELLO "]', '[ "say hello" ]', '["say","hello"]', '["say hell"]']
    assert prompt_groups(cells, "auto").tolist() == [0, 0, 0, 0, 0, 1]
    assert prompt_groups(['["ﬁne"]', '["FINE"]', '["stra\\u00dfe"]', "STRASSE"], "auto").tolist() == [0, 0, 1, 1]


def test_folds_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(RunError, match="2 distinct prompts for 3 folds"):
        grouped_folds(np.arange(9) % 3, np.arange(9) % 2, 3)
    with pytest.raises(RunError, match="class tie has 1 rows for 3 folds"):
        grouped_folds(np.array([0, 0, 0, 1, 1, 1, 2]), np.arange(7), 3)
