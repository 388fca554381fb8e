"""Conversations of several turns are judged turn by turn, and what is said is mixed with class shares."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.members.lightgbm.artifacts import LINEAR, METADATA, load
from lmsys_ray.members.lightgbm.preference import PreferenceFeatures
from lmsys_ray.members.lightgbm.scorer import LightGBMScorer, turn_scores
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.lightgbm.shrinkage import Shrinkage, shrunk, symmetric
from lmsys_ray.members.lightgbm.training.joined import join
from lmsys_ray.members.lightgbm.turns import undivided
from lmsys_ray.members.protocol import CONVERSATIONS
from tests.members.lightgbm.member import PACKAGED, copy_of_packaged, rewrite
from tests.members.lightgbm.texts import conversations

TURNS = [
    ("How tall is a giraffe?", "Up to 5.5 metres.", "A giraffe is an animal.\n\n- It has spots."),
    ("And an elephant?", "", "About 3 metres at the shoulder, larger than **most**."),
    ("Which is heavier?", "The elephant, by far: six tonnes.", "I am sorry, I can't say."),
]
PRIOR = (0.3455, 0.3455, 0.309)


def table(*rows: tuple[list[str], list[str], list[str]]) -> pa.Table:
    cells = [[json.dumps(row[place]) for row in rows] for place in range(3)]
    return pa.table([np.arange(len(rows)), [*map(str, range(len(rows)))], *cells], schema=CONVERSATIONS)


def whole(turns: list[tuple[str, str, str]]) -> tuple[list[str], list[str], list[str]]:
    prompt, a, b = (list(cells) for cells in zip(*turns, strict=True))
    return prompt, a, b


def made(directory: Path | str) -> LightGBMScorer:
    return LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(directory)), "auto")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return copy_of_packaged(tmp_path / "member")


def change_shrinkage(directory: Path, **values: object) -> None:
    metadata = json.loads((directory / METADATA).read_text())
    metadata["shrinkage"] |= values
    (directory / METADATA).write_text(json.dumps(metadata))


def test_turns_are_judged_one_by_one_and_averaged(directory: Path) -> None:
    change_shrinkage(directory, prior_weight=0, prior_weight_turns=0)
    scorer = made(directory)
    alone = scorer.score(table(*(whole([turn]) for turn in TURNS))).probabilities
    (together,) = scorer.score(table(whole(TURNS))).probabilities
    assert together == pytest.approx(alone.mean(axis=0), abs=1e-6)
    assert np.ptp(alone[:, 0]) > 0.05


def test_several_turns_are_mixed_with_more_of_the_prior(directory: Path) -> None:
    rows = table(whole(TURNS), whole(TURNS[:1]))
    change_shrinkage(directory, prior_weight=0, prior_weight_turns=0)
    plain = made(directory).score(rows).probabilities
    change_shrinkage(directory, prior_weight=0.25, prior_weight_turns=0.75)
    expected = [0.25 * plain[0] + 0.75 * np.array(PRIOR), 0.75 * plain[1] + 0.25 * np.array(PRIOR)]
    assert made(directory).score(rows).probabilities == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("cells", [(["a?", "b?"], ["x", "y"], ["z"]), (["a?"], ["x", "y"], ["z", "w"])])
def test_turns_that_do_not_match_are_one_text_of_several(cells: tuple[list[str], list[str], list[str]]) -> None:
    joined = tuple(["\n".join(turns)] for turns in cells)
    features = PreferenceFeatures("auto")
    found = features.by_turn(table(cells))
    assert np.array_equal(found.matrix, features.matrix(table(joined)))
    assert found.several.tolist() == [True]


def test_rows_of_any_turns_keep_their_place() -> None:
    rows = conversations(60, seed=8)
    features = PreferenceFeatures("auto")
    found = features.by_turn(rows)
    assert len(found.matrix) == len(found.rows) > 60
    assert found.several.any()
    for row in range(60):
        alone = features.by_turn(rows.slice(row, 1))
        assert np.array_equal(found.matrix[found.rows == row], alone.matrix)
        assert found.several[row] == alone.several[0]


def test_sides_of_several_turns_are_equal() -> None:
    prompt, a, b = whole(TURNS)
    first, second = made("packaged:lightgbm").score(table((prompt, a, b), (prompt, b, a))).probabilities
    assert np.array_equal(first, second[[1, 0, 2]])


def test_a_member_of_an_earlier_format_reads_turns_as_one_text(directory: Path) -> None:
    metadata = json.loads((directory / METADATA).read_text())
    del metadata["shrinkage"], metadata["files"][LINEAR]
    (directory / METADATA).write_text(json.dumps(metadata | {"format": 2}))
    prompt, a, b = whole(TURNS)
    joined = tuple(["\n".join(cell)] for cell in (prompt, a, b))
    several, one = made(directory).score(table((prompt, a, b), joined)).probabilities
    assert np.array_equal(several, one)
    artifacts = load(directory)
    features = PreferenceFeatures("auto")
    boosters = turn_scores(artifacts, features, undivided(features.matrix(table(joined))))
    assert np.array_equal(one, boosters[0].astype(np.float32))


def columns(text: str) -> str:
    linear = json.loads(text)
    return json.dumps(linear | {"columns": [*linear["columns"][:-1], "difference_of_opinion"]})


def weight(text: str) -> str:
    linear = json.loads(text)
    linear["models"][1]["weights"].pop()
    return json.dumps(linear)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: rewrite(d, LINEAR, columns), r"linear\.json names other columns than this version computes"),
        (lambda d: rewrite(d, LINEAR, weight), r"linear\.json: models\.1 is wrong .*46 scales for 45 weights"),
        (lambda d: rewrite(d, LINEAR, lambda text: text.replace("]", ", 1e999]", 1)), r"linear\.json"),
        (lambda d: (d / LINEAR).unlink(), r"linear\.json is missing"),
        (lambda d: change_shrinkage(d, prior=[0.5, 0.4, 0.1]), r"metadata\.json: shrinkage is wrong"),
        (lambda d: change_shrinkage(d, prior_weight=2), r"metadata\.json: shrinkage\.prior_weight is wrong"),
    ],
)
def test_damaged_parts_are_refused_with_a_sentence(directory: Path, damage: Callable, sentence: str) -> None:
    damage(directory)
    with pytest.raises(RunError, match=sentence) as raised:
        made(directory)
    assert "\n" not in str(raised.value)


def test_shares_of_a_and_b_are_made_equal() -> None:
    assert symmetric((0.349, 0.342, 0.309)) == PRIOR
    assert sum(symmetric((2, 1, 3))) == pytest.approx(1)


def test_joined_conversations_use_each_other_one_once_and_say_what_the_scorer_says() -> None:
    """Means of held-out scores stand for scoring the joined texts."""
    artifacts = load(PACKAGED)
    assert artifacts.shrinkage is not None
    scorer = made("packaged:lightgbm")
    rows = [whole([turn]) for turn in TURNS * 4]
    features = PreferenceFeatures("auto")
    scores = turn_scores(artifacts, features, features.by_turn(table(*rows)))
    joined = join(np.arange(len(rows)), seed=5)
    assert len(np.unique(np.concatenate(joined.parts))) == sum(map(len, joined.parts)) >= 8
    found = shrunk(
        joined.means(scores, np.ones(len(rows))), np.ones(len(joined.parts), bool), artifacts.shrinkage
    ).astype(np.float32)
    texts = []
    for parts, swapped in zip(joined.parts, joined.swapped, strict=True):
        sided = [(p, b, a) if swap else (p, a, b) for (p, a, b), swap in zip(_turns(rows, parts), swapped, strict=True)]
        texts.append(whole(sided))
    assert found == pytest.approx(scorer.score(table(*texts)).probabilities, abs=1e-6)


def test_the_label_of_a_joined_conversation_is_that_of_its_deciding_part() -> None:
    labels = np.array([0, 0, 0, 0, 2, 2, 2, 2])
    joined = join(np.arange(8), seed=1)
    for parts, swapped, place, label in zip(
        joined.parts, joined.swapped, joined.deciding, joined.labels(labels), strict=True
    ):
        assert label == (2 if parts[place] > 3 else 1 if swapped[place] else 0)


def test_the_prior_must_be_one() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Shrinkage(turns="apart", linear_share=0, prior_weight=0, prior_weight_turns=0, prior=(0.3, 0.3, 0.3))


def _turns(rows: list[tuple[list[str], list[str], list[str]]], parts: np.ndarray) -> list[tuple[str, str, str]]:
    return [(rows[part][0][0], rows[part][1][0], rows[part][2][0]) for part in parts]
