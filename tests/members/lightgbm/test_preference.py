"""The packaged kind of features: no side, whatever the texts; the numbers say what their names say."""

import json
import re
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.errors import RunError
from lmsys_ray.members.lightgbm import artifacts
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures, named_features
from lmsys_ray.members.lightgbm.scorer import LightGBMScorer
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.orders import exchanged
from lmsys_ray.members.protocol import CONVERSATIONS
from tests.members.lightgbm.texts import ODD_CELLS, anything, conversations


def table(*rows: tuple[str, str, str]) -> pa.Table:
    """Returns conversations of one turn each."""
    cells = [[json.dumps([row[place]]) for row in rows] for place in range(3)]
    return pa.table([np.arange(len(rows)), [*map(str, range(len(rows)))], *cells], schema=CONVERSATIONS)


def features_of(prompt: str, a: str, b: str) -> dict[str, float]:
    return {name: float(value[0]) for name, value in named_features(table((prompt, a, b)), "auto").items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[anything | st.sampled_from(ODD_CELLS)] * 3), min_size=1, max_size=4))
def test_swapping_the_sides_changes_signs_alone(rows: list[tuple[str, str, str]]) -> None:
    features = PreferenceFeatures("auto")
    matrix = features.matrix(table(*rows))
    assert np.isfinite(matrix).all()
    assert matrix.shape == (len(rows), features.columns)
    assert np.array_equal(features.mirrored(matrix), features.matrix(exchanged(table(*rows))))


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = conversations(30, seed=3)
    whole = PreferenceFeatures("auto").matrix(rows)
    alone = [PreferenceFeatures("auto").matrix(rows.slice(row, 1)) for row in range(30)]
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


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("- - - x", {"bullets": 1}),
        ("* * *\n* y\n  - z\n\n\t• w", {"bullets": 4}),
        ("-\n- a\n-", {"bullets": 3}),
        ("a - b\n-c\n--- d\n**bold**", {"bullets": 0}),
        ("1. 2. 3. x\n 4) 5) y", {"numbered": 2}),
        ("2024. a\n1.5 b", {"numbered": 0}),
        ("# # x\n## y\n####### z\n #w", {"headings": 2}),
    ],
)
def test_lines_are_counted_by_what_they_begin_with(text: str, counts: dict[str, int]) -> None:
    found = features_of("Why?", text, "")
    for name, count in counts.items():
        assert found[f"difference_{name}"] == pytest.approx(np.log(1 + count))


LINES = {"bullets": r"[-*•]", "numbered": r"[0-9]{1,3}[.)]", "headings": "#{1,6}"}


@settings(max_examples=60, deadline=None)
@given(st.text("-*#1.) \n\tx", max_size=30))
def test_lines_are_counted_as_pythons_expressions_do(text: str) -> None:
    found = features_of("Why?", text, "")
    for name, mark in LINES.items():
        indent = "" if name == "headings" else r"[ \t]*"
        count = sum(bool(re.match(rf"{indent}{mark}(\s|$)", line)) for line in text.split("\n"))
        assert found[f"difference_{name}"] == pytest.approx(np.log(1 + count)), name


def test_words_are_found_in_scripts_without_spaces() -> None:
    found = features_of("你好吗", "我很好", "I am well")
    assert found["prompt_words"] == pytest.approx(np.log(4))
    assert found["difference_script_change"] == -1


def test_equal_and_empty_responses_are_told() -> None:
    same, empty = features_of("Why?", "So.", "So."), features_of("Why?", "", "")
    assert same["pair_same_text"] == empty["pair_same_text"] == empty["pair_same_words"] == 1
    assert all(value == 0 for name, value in same.items() if name.startswith("difference"))


def fitted_member(directory: Path, **changes: object) -> None:
    features, rows = PreferenceFeatures("auto"), conversations(200, seed=4)
    labels = np.arange(200) % 3
    data = lgb.Dataset(features.matrix(rows), labels, feature_name=features.names)
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_leaves": 5, "num_threads": 1, **changes}
    directory.mkdir()
    save(Artifacts("preference", (), [lgb.train(options, data, 10)]), directory)


def test_scores_have_no_side(tmp_path: Path) -> None:
    fitted_member(tmp_path / "member")
    scorer = LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")), "auto")
    rows = conversations(50, seed=5)
    scores = scorer.score(rows).probabilities
    assert np.ptp(scores) > 0.1
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(scores, scorer.score(exchanged(rows)).probabilities[:, [1, 0, 2]])


@pytest.mark.parametrize("format_number", [None, 1])
def test_boosters_fitted_on_features_of_an_earlier_format_are_refused(
    tmp_path: Path, format_number: int | None
) -> None:
    fitted_member(tmp_path / "member")
    file = tmp_path / "member" / artifacts.METADATA
    metadata = json.loads(file.read_text()) | {"format": format_number}
    file.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))
    with pytest.raises(RunError, match="fitted on features that this version computes differently; train it again"):
        LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")), "auto")


def test_boosters_whose_sums_are_no_logits_are_refused(tmp_path: Path) -> None:
    fitted_member(tmp_path / "member", objective="multiclassova")
    with pytest.raises(
        RunError, match=r"booster-00\.txt was not fitted with the objective multiclass but with multiclassova"
    ):
        LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")), "auto")


def test_boosters_of_other_columns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted_member(tmp_path / "member")
    names = [*PreferenceFeatures("auto").names[:-1], "a_newer_column"]
    monkeypatch.setattr(
        artifacts, "make_features", lambda *_: type("Newer", (), {"names": names, "columns": len(names)})
    )
    with pytest.raises(RunError, match="names other columns than this version computes"):
        LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "member")), "auto")
