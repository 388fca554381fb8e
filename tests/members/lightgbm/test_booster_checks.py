"""What LightGBM would believe of a damaged or crafted file, and must not be given."""

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import lightgbm as lgb
import numpy as np
import pytest

from lmsys_ray.members.lightgbm.booster_checks import validated_booster
from tests.members.lightgbm.boosters import COLUMNS, KINDS, ROWS, booster, resized, text, walked


@pytest.mark.parametrize("kind", KINDS)
def test_what_lightgbm_writes_passes_and_computes_the_same(kind: str) -> None:
    kept, header = validated_booster(text(kind).encode())
    loaded = lgb.Booster(model_str=kept.decode())
    assert (header.columns, header.averages) == (COLUMNS, kind == "forest")
    assert np.array_equal(loaded.predict(ROWS), booster(kind).predict(ROWS))
    np.testing.assert_allclose(loaded.predict(ROWS, raw_score=True), walked(text(kind), ROWS), atol=1e-12)


def put(key: str, value: str) -> Callable[[str], str]:
    """Returns a change of one value of the first tree that has the key: its first one."""
    return lambda content: re.sub(rf"(\n{key}=)[-+.e0-9]+", rf"\g<1>{value}", content, count=1)


def line(key: str, value: str) -> Callable[[str], str]:
    return lambda content: re.sub(rf"(\n{key}=)[^\n]*", rf"\g<1>{value}", content, count=1)


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("plain", put("split_feature", "5"), "split_feature of tree 0 holds 5, beyond the 5 that there are"),
        ("plain", put("split_feature", "2000000000"), "split_feature of tree 0 holds 2000000000"),
        ("plain", put("split_feature", "-1"), "split_feature of tree 0 holds -1"),
        ("plain", put("left_child", "0"), "left_child of tree 0 holds 0, where no node of it can be"),
        ("plain", put("left_child", "400000000"), "left_child of tree 0 holds 400000000"),
        ("plain", put("right_child", "-77777"), "right_child of tree 0 holds -77777"),
        ("plain", put("left_child", "-5"), "where another split of it leads too"),
        ("plain", put("num_leaves", "200000"), "tree 0 has 200000 leaves"),
        ("plain", put("num_leaves", "4"), "split_feature of tree 0 has 4 values where 3 are needed"),
        ("plain", put("num_leaves", "0"), "tree 0 has 0 leaves"),
        ("plain", put("leaf_value", "1e999"), "leaf_value of tree 0 holds 1e999, which is not finite"),
        ("plain", put("leaf_value", "1-2"), "leaf_value holds what is not a number"),
        ("plain", put("threshold", "-1e999"), "threshold of tree 0 holds -1e999, which is not finite"),
        ("plain", put("leaf_value", ""), "leaf_value of tree 0"),
        ("plain", put("decision_type", "64"), "decision_type of tree 0 holds 64"),
        ("plain", put("decision_type", "1"), "threshold of tree 0"),
        ("plain", put("num_cat", "1"), "tree 0 has num_cat = 1 and other sets of categories"),
        ("plain", put("is_linear", "1"), "is_linear of tree 0 and its linear models contradict"),
        ("plain", put("is_linear", "7"), "tree 0 is not where tree_sizes says, or not as LightGBM writes it"),
        ("plain", line("split_gain", "1 2 3"), "split_gain of tree 0 has 3 values where 4 are needed"),
        ("plain", line("tree_sizes", "1 2 3"), "tree 0 is not where tree_sizes says"),
        ("plain", line("tree_sizes", "9999999 1 1"), "tree 0 is not where tree_sizes says"),
        ("plain", line("tree_sizes", "1 2"), "its 2 trees are not as many for each class"),
        ("plain", line("max_feature_idx", "900000000"), "feature_names has 5 entries for 900000001 columns"),
        ("plain", line("feature_infos", "none"), "feature_infos has 1 entries for 5 columns"),
        ("plain", line("feature_names", "a\tb c d e f"), "does not begin as LightGBM writes a model"),
        ("plain", line("num_class", "4"), "4 classes and 3 trees an iteration where 3 are needed"),
        ("plain", line("num_tree_per_iteration", "1"), "3 classes and 1 trees an iteration"),
        (
            "plain",
            line("objective", "softmax num_class:3"),
            "not fitted with the objective multiclass but with softmax",
        ),
        ("plain", line("objective", "multiclass num_class:9"), "but with multiclass num_class:9"),
        ("categories", put("cat_boundaries", "1"), "do not divide its cat_threshold"),
        ("categories", put("cat_threshold", "4294967296"), "cat_boundaries of tree"),
        ("linear", put("num_features", "3000"), "num_features of tree"),
        ("linear", put("leaf_const", "1e-310"), "leaf_const of tree 0 holds 1e-310, which is too small"),
        ("linear", put("leaf_features", "44"), "leaf_features of tree"),
    ],
    ids=lambda value: None if callable(value) else str(value)[:60],
)
def test_indices_that_lead_nowhere_are_refused(kind: str, change: Callable[[str], str], expected: str) -> None:
    changed = change(text(kind))
    assert changed != text(kind)
    if "\ntree_sizes=1" not in changed and "\ntree_sizes=9" not in changed:
        changed = resized(changed)
    with pytest.raises(ValueError, match=re.escape(expected)):
        validated_booster(changed.encode())


def test_a_circle_that_the_first_split_does_not_lead_to_is_refused() -> None:
    changed = line("left_child", "-1 2 3 -4")(line("right_child", "-2 -3 1 -5")(text("plain")))
    with pytest.raises(ValueError, match="tree 0 has nodes that its first split does not lead to"):
        validated_booster(resized(changed).encode())


@pytest.mark.parametrize("objective", ["regression", "multiclassova"])
def test_scores_that_are_no_probabilities_of_three_classes_are_refused(objective: str) -> None:
    with pytest.raises(ValueError, match="was not fitted with the objective multiclass but with"):
        validated_booster(booster("plain", objective).model_to_string().encode())


def test_the_columns_of_splits_do_not_hang_on_their_gains() -> None:
    from lmsys_ray.members.lightgbm.scorer import used_columns

    content = re.sub(r"\nsplit_gain=[^\n]*", lambda found: re.sub(r"[0-9][^ ]*", "0", found[0]), text("plain"))
    without = lgb.Booster(model_str=resized(content))
    assert without.feature_importance("split").sum() == 0
    assert np.array_equal(used_columns([without]), booster("plain").feature_importance("split") > 0)


def fuzz(seed: int, count: int, seconds: float) -> int:
    """Runs the fuzzer in a process of its own, which LightGBM may crash; returns how many texts passed the checks."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.members.lightgbm.boosters", str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout)


def test_mutated_boosters_are_refused_or_computed_as_they_say() -> None:
    assert fuzz(1, 1500, 120) > 50


@pytest.mark.soak
def test_many_mutated_boosters_are_refused_or_computed_as_they_say() -> None:
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda seed: fuzz(seed, 40_000, 3600), range(2, 6)))
    assert min(passed) > 2000
