"""What `cells` says of the raw cells reaches members of every kind: what they read is what ingestion took it for."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.lightgbm.artifacts import Artifacts, save
from lmsys_ray.members.lightgbm.features import FeatureKind, make_features
from lmsys_ray.members.lightgbm.kind import LightGBMKind
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.lightgbm.vectorizer import VectorizerSettings
from lmsys_ray.members.protocol import CONVERSATIONS
from lmsys_ray.members.registry import kind_of
from lmsys_ray.scoring import shard_worker as shard_scorer
from tests.members.lightgbm.texts import conversations
from tests.tiny_llama import make_tokenizer

TURNS: dict[CellForm, dict[str, list[str]]] = {
    "text": {
        "[] is an empty list in Python.": ["[] is an empty list in Python."],
        '["one","two"]': ['["one","two"]'],
        "[null]": ["[null]"],
        "- plain\n\n- text": ["- plain\n\n- text"],
        '["broken': ['["broken'],
    },
    "json": {'["one","two"]': ["one", "two"], "[null]": [""], '["- a\\n- b"]': ["- a\n- b"], "[]": []},
    "auto": {'["one","two"]': ["one", "two"], "one, two": ["one, two"], "[Verse 1] la": ["[Verse 1] la"]},
}
"""The turns of raw cells under each form."""

FORMS = tuple(TURNS)


def rows(cells: list[str]) -> pa.Table:
    """Returns conversations in which each cell stands in each place."""
    columns = [cells[place:] + cells[:place] for place in range(3)]
    return pa.table([np.arange(len(cells)), [*map(str, range(len(cells)))], *columns], schema=CONVERSATIONS)


def llama(directory: Path, text: str) -> ClassifierSettings:
    make_tokenizer(directory)
    return ClassifierSettings.model_validate({"kind": "llama", "model": str(directory), "text": text})


def lightgbm(directory: Path, kind: FeatureKind) -> LightGBMSettings:
    """Fits a member that tells texts of few lines and words apart."""
    vocabularies = (
        VectorizerSettings(analyzer="word", ngram_range=(1, 1), vocabulary=["one", "plain", "null"]),
        VectorizerSettings(analyzer="char", ngram_range=(1, 1), vocabulary=["[", '"', "l"]),
    )
    vocabularies = vocabularies if kind == "notebook" else ()
    table = pa.concat_tables([conversations(60, seed=4), *(rows(list(TURNS[form]) * 4) for form in FORMS)])
    features = make_features(kind, vocabularies, "text")
    data = lgb.Dataset(features.matrix(table), np.arange(table.num_rows) % 3, feature_name=features.names)
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 1}
    directory.mkdir()
    save(Artifacts(kind, vocabularies, [lgb.train(options, data, 10)]), directory)
    return LightGBMSettings(kind="lightgbm", artifacts=str(directory))


def computed(settings: ClassifierSettings | LightGBMSettings, form: CellForm, table: pa.Table) -> list:
    """Returns what follows from the texts of each row: token ids, or probabilities."""
    kind = kind_of(settings)
    if encoder := kind.encoder(settings, form):
        return encoder.encode(table)["input_ids"].to_pylist()
    return kind.scorer(settings, form).score(table).probabilities.tolist()


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassifierSettings | LightGBMSettings]:
    directory = tmp_path_factory.mktemp("members")
    return {
        "llama, json": llama(directory / "json", "json"),
        "llama, notebook": llama(directory / "raw", "notebook"),
        "lightgbm, preference": lightgbm(directory / "preference", "preference"),
        "lightgbm, notebook": lightgbm(directory / "notebook", "notebook"),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["llama, json", "lightgbm, preference"])
def test_cells_are_read_in_their_form(members: dict, name: str, form: CellForm) -> None:
    spelt_out = [json.dumps(turns) for turns in TURNS[form].values()]
    read = computed(members[name], form, rows(list(TURNS[form])))
    assert read == computed(members[name], "json", rows(spelt_out))


@pytest.mark.parametrize("name", ["llama, json", "lightgbm, preference"])
def test_the_form_makes_a_difference(members: dict, name: str) -> None:
    table = rows(['["one","two\\nthree"]', "plain", "[null]"])
    assert computed(members[name], "text", table) != computed(members[name], "auto", table)


@pytest.mark.parametrize("name", ["llama, notebook", "lightgbm, notebook"])
def test_the_notebooks_members_read_raw_cells_whatever_the_form(members: dict, name: str) -> None:
    for form, cells in TURNS.items():
        found = [computed(members[name], other, rows(list(cells))) for other in FORMS]
        assert found[0] == found[1] == found[2], form


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_run_reaches_what_its_actors_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: CellForm
) -> None:
    given: list[CellForm] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(shard_scorer.ray, "get_gpu_ids", list)
    monkeypatch.setattr(shard_scorer.PassSpec, "reporter", lambda *_: SimpleNamespace(loading=nullcontext))
    monkeypatch.setattr(LightGBMKind, "scorer", lambda kind, settings, cells: given.append(cells))
    member = LightGBMSettings(kind="lightgbm", artifacts="packaged:lightgbm").model_dump_json()
    shard_scorer.ShardScorer(shard_scorer.PassSpec(str(tmp_path), "trees", member, form, None, 3))
    assert given == [form]
