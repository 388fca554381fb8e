"""The LightGBM member gives what the notebook gives, bit by bit, from artefacts that hold no code."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.lightgbm import scorer
from lmsys_ray.members.lightgbm.artifacts import METADATA, Artifacts, load, save
from lmsys_ray.members.lightgbm.scorer import LightGBMScorer
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from tests.members.lightgbm.fitted import Fitted, fit
from tests.members.lightgbm.member import rewrite
from tests.members.lightgbm.texts import conversations


@pytest.fixture
def fitted() -> Fitted:
    return fit()


@pytest.fixture
def directory(fitted: Fitted, tmp_path: Path) -> Path:
    path = tmp_path / "lightgbm"
    path.mkdir()
    save(artifacts_of(fitted), path)
    return path


def artifacts_of(fitted: Fitted) -> Artifacts:
    vocabularies = (VectorizerSettings.of(fitted.cvec), VectorizerSettings.of(fitted.ccvec))
    return Artifacts("notebook", vocabularies, [model.booster_ for model in fitted.models])


def made(directory: Path) -> LightGBMScorer:
    return LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(directory)), "auto")


def test_features_equal_the_notebooks(fitted: Fitted, directory: Path) -> None:
    rows = conversations(80, seed=6)
    assert np.array_equal(load(directory).features("auto").matrix(rows).toarray(), fitted.features(rows.to_pandas()))


def test_probabilities_equal_the_notebooks(fitted: Fitted, directory: Path) -> None:
    rows = conversations(80, seed=7)
    scores = made(directory).score(rows).probabilities
    assert scores.dtype == np.float32
    assert np.array_equal(scores, fitted.probabilities(rows.to_pandas()).astype(np.float32))


def test_batches_do_not_change_the_scores(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = conversations(50, seed=8)
    whole = made(directory).score(rows).probabilities
    monkeypatch.setattr(scorer, "_BATCH_CHARACTERS", 500)
    chunked = pa.concat_tables([rows.slice(0, 17), rows.slice(17)])
    assert np.array_equal(made(directory).score(chunked).probabilities, whole)


def test_no_rows_give_no_scores(directory: Path) -> None:
    assert made(directory).score(conversations(0)).probabilities.shape == (0, 3)


def test_terms_that_no_tree_uses_are_not_counted(directory: Path) -> None:
    artifacts = load(directory)
    features = artifacts.features("auto")
    used = scorer.used_columns(artifacts.boosters)
    rows = conversations(40, seed=9)
    matrix, pruned = features.matrix(rows), features.only(used).matrix(rows)
    assert pruned.nnz < matrix.nnz / 2
    assert np.array_equal(pruned.toarray()[:, used], matrix.toarray()[:, used])


def test_what_is_saved_loads_as_it_was(fitted: Fitted, directory: Path) -> None:
    saved, loaded = artifacts_of(fitted), load(directory)
    assert (loaded.kind, loaded.vocabularies) == (saved.kind, saved.vocabularies)
    texts = [[booster.model_to_string() for booster in artifacts.boosters] for artifacts in (saved, loaded)]
    # What follows, parameters of the fit, is not loaded.
    ends = "\nparameters:", "\npandas_categorical"
    saved_texts, loaded_texts = [
        [text.split(end)[0].rstrip() for text in each] for each, end in zip(texts, ends, strict=True)
    ]
    assert saved_texts == loaded_texts


def without_last_term(text: str) -> str:
    settings = json.loads(text)
    return json.dumps(settings | {"vocabulary": settings["vocabulary"][:-1]})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: (d / "words.json").unlink(), r"words\.json is missing"),
        (lambda d: (d / "booster-01.txt").write_text("tree"), r"booster-01\.txt was changed or cut short"),
        (lambda d: rewrite(d, "words.json", lambda t: t[:-9]), r"words\.json is not JSON"),
        (lambda d: rewrite(d, "words.json", without_last_term), "do not belong together"),
        (lambda d: rewrite(d, "words.json", lambda t: t.replace('"word"', '"syllable"')), r"words\.json: analyzer"),
        (lambda d: rewrite(d, "booster-00.txt", lambda t: "nothing"), r"booster-00\.txt is not a LightGBM model"),
        (lambda d: rewrite(d, "booster-00.txt", lambda t: t.split("end of trees")[0]), r"booster-00\.txt is cut short"),
        (
            lambda d: rewrite(d, "booster-00.txt", lambda t: t.replace("left_child=1", "left_child=0", 1)),
            r"booster-00\.txt is damaged: left_child of tree \d holds 0, where no node of it can be; import or train",
        ),
        (
            lambda d: rewrite(d, "booster-01.txt", lambda t: t.replace("objective=multiclass", "objective=regression")),
            r"booster-01\.txt was not fitted with the objective multiclass but with regression num_class:3",
        ),
        (lambda d: (d / METADATA).write_text("{}"), r"metadata\.json: features is wrong"),
        (lambda d: (d / METADATA).write_text("[" * 5000), r"metadata\.json is not JSON"),
        (lambda d: (d / METADATA).write_text('{"features": "notebook", "files": {}}'), "does not list words"),
        (lambda d: (d / METADATA).write_text('{"features": "other", "files": {}}'), "features is wrong"),
    ],
)
def test_damaged_artefacts_are_refused_with_a_sentence(directory: Path, damage: Callable, sentence: str) -> None:
    damage(directory)
    with pytest.raises(RunError, match=sentence) as raised:
        made(directory)
    assert "\n" not in str(raised.value)


def test_a_directory_of_something_else_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no metadata\.json"):
        made(tmp_path)


def test_boosters_of_two_classes_are_refused(fitted: Fitted, directory: Path) -> None:
    rows = conversations(60, seed=5)
    binary = type(fitted.models[0])(n_estimators=2, verbose=-1)
    binary.fit(fitted.features(rows.to_pandas()), np.arange(60) % 2)
    rewrite(directory, "booster-00.txt", lambda _: binary.booster_.model_to_string())
    with pytest.raises(RunError, match="not fitted with the objective multiclass but with binary sigmoid:1"):
        made(directory)
