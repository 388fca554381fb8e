"""The packaged kind of features: no side, whatever the texts; the numbers say what their names say."""

import json
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.config import LightGBMSettings
from lmsys_ray.errors import RunError
from lmsys_ray.members.base import CONVERSATIONS
from lmsys_ray.members.lightgbm import LightGBMScorer, artifacts
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures, named_features
from tests.lightgbm.texts import ODD_CELLS, anything, conversations


def table(*rows: tuple[str, str, str]) -> pa.Table:
    """Returns conversations of one turn each."""
    cells = [[json.dumps([row[place]]) for row in rows] for place in range(3)]
    return pa.table([np.arange(len(rows)), *cells], schema=CONVERSATIONS)


def swapped(rows: pa.Table) -> pa.Table:
    return rows.select(["row", "prompt", "response_b", "response_a"]).rename_columns(CONVERSATIONS.names)


def features_of(prompt: str, a: str, b: str) -> dict[str, float]:
    return {name: float(value[0]) for name, value in named_features(table((prompt, a, b))).items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[anything | st.sampled_from(ODD_CELLS)] * 3), min_size=1, max_size=4))
def test_swapping_the_sides_changes_signs_alone(rows: list[tuple[str, str, str]]) -> None:
    features = PreferenceFeatures()
    matrix = features.matrix(table(*rows))
    assert np.isfinite(matrix).all()
    assert matrix.shape == (len(rows), features.columns)
    assert np.array_equal(features.mirrored(matrix), features.matrix(swapped(table(*rows))))


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = conversations(30, seed=3)
    whole = PreferenceFeatures().matrix(rows)
    alone = [PreferenceFeatures().matrix(rows.slice(row, 1)) for row in range(30)]
    assert np.array_equal(whole, np.concatenate(alone))


def test_texts_are_measured() -> None:
    found = features_of(
        "Name two red fruits.", "# Fruits\n- Cherries\n- Apples", "Two red fruits are cherries and apples."
    )
    assert found["difference_bullets"] == pytest.approx(np.log(3))
    assert found["difference_headings"] == pytest.approx(np.log(2))
    assert found["difference_ends_whole"] == -1
    assert found["difference_prompt_covered"] == pytest.approx(1 / 4 - 3 / 4)
    assert found["pair_same_words"] == pytest.approx(3 / 7)
    assert found["prompt_words"] == pytest.approx(np.log(5))


def test_words_are_found_in_scripts_without_spaces() -> None:
    found = features_of("你好吗", "我很好", "I am well")
    assert found["prompt_words"] == pytest.approx(np.log(4))
    assert found["difference_script_change"] == -1


def test_equal_and_empty_responses_are_told() -> None:
    same, empty = features_of("Why?", "So.", "So."), features_of("Why?", "", "")
    assert same["pair_same_text"] == empty["pair_same_text"] == empty["pair_same_words"] == 1
    assert all(value == 0 for name, value in same.items() if name.startswith("difference"))


def fitted_member(directory: Path) -> None:
    features, rows = PreferenceFeatures(), conversations(200, seed=4)
    labels = np.arange(200) % 3
    data = lgb.Dataset(features.matrix(rows), labels, feature_name=features.names)
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_leaves": 5, "num_threads": 1}
    directory.mkdir()
    save(Artifacts("preference", (), [lgb.train(options, data, 10)]), directory)


def test_scores_have_no_side(tmp_path: Path) -> None:
    fitted_member(tmp_path / "member")
    scorer = LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")))
    rows = conversations(50, seed=5)
    scores = scorer.score(rows)
    assert np.ptp(scores) > 0.1
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(scores, scorer.score(swapped(rows))[:, [1, 0, 2]])


def test_boosters_of_other_columns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_member(tmp_path / "member")
    names = [*PreferenceFeatures().names[:-1], "a_newer_column"]
    monkeypatch.setattr(
        artifacts, "make_features", lambda *_: type("Newer", (), {"names": names, "columns": len(names)})
    )
    with pytest.raises(RunError, match="names other columns than this version computes"):
        LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")))
