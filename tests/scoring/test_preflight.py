"""What is checked and settled before a run starts: names that lead nowhere, and what a moving name means."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from lmsys_ray.checkpoints.sources import AS_TRAINED, read_scoring
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.preflight import check
from lmsys_ray.scoring.settings import Settings
from tests.prompts.chat_models import FAMILIES, write_model
from tests.tiny_llama import make_backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, as `huggingface_hub` keeps it, in which `main` of some/judge is a commit."""
    repository = tmp_path / "hub" / "models--some--judge"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def settings(tmp_path: Path, **llama: object) -> Settings:
    values = {"input": ["packaged:sample.csv"], "output": str(tmp_path / "run")}
    return Settings.model_validate({**values, "members": {"judge": {"kind": "llama", **llama}}})


@pytest.mark.parametrize("name", ["some/judge", "some/judge@main", f"some/judge@{COMMIT}"])
def test_a_model_of_the_hub_is_named_by_the_commit_that_it_means(tmp_path: Path, hub: Path, name: str) -> None:
    found = check(settings(tmp_path, model=name, adapter=name))
    assert found.members["judge"].model == f"some/judge@{COMMIT}"
    assert found.members["judge"].adapter == f"some/judge@{COMMIT}"
    assert fingerprint(found)["members"]["judge"]["model"] == f"some/judge@{COMMIT}"


def test_local_and_packaged_models_keep_their_names(tmp_path: Path) -> None:
    trained = read_scoring("packaged:smollm2-135m", "packaged:smollm2-135m-lora")
    as_trained = {key: trained[key] for key in AS_TRAINED if key in trained}
    base = make_backbone(tmp_path / "base")
    given = settings(tmp_path, model=str(base), adapter="packaged:smollm2-135m-lora", **as_trained)
    assert check(given) == given


def test_an_adapter_that_learnt_to_read_rows_otherwise_is_refused_at_once(tmp_path: Path) -> None:
    base = str(make_backbone(tmp_path / "base"))
    (tmp_path / "scoring.json").write_text(json.dumps({"template": "labelled"}))
    with pytest.raises(UsageError, match=r"members\.judge: adapter: .* was trained with template = 'labelled', this"):
        check(settings(tmp_path, model=base, adapter=str(tmp_path)))
    assert check(settings(tmp_path, model=base, adapter=str(tmp_path), template="labelled"))


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        ({"kind": "judge", "verdicts": {"a": "[[A]]", "b": "[[B]]", "tie": "[[C]]"}}, "verdicts.a: '[[A]]' is no"),
        ({"kind": "judge", "chat_template": "missing"}, "chat_template: 'missing' is neither a Jinja text"),
        ({"kind": "reward", "chat_template": "{{ messages[0].content }}"}, "leaves out or rewrites the text of the"),
        ({"kind": "reward", "max_length": 16}, "max_length: 16 leaves too little beside"),
    ],
)
def test_what_a_local_model_cannot_be_asked_is_told_before_anything_starts(
    tmp_path: Path, member: dict, sentence: str
) -> None:
    model = write_model(tmp_path / "model", FAMILIES["qwen2"])
    members = {"judge": {"model": str(model), **member}}
    values = {"input": ["packaged:sample.csv"], "output": str(tmp_path / "run"), "members": members}
    with pytest.raises(UsageError, match="members.judge: .*" + re.escape(sentence)):
        check(Settings.model_validate(values))


def test_a_model_that_nobody_has_is_named(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("some/other is not on this machine and the Hugging Face hub did")):
        check(settings(tmp_path, model="some/other"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://../../x", "names nothing in that storage"),
        ("hf://", "names nothing in that storage"),
        ("hf://datasets/../x", "names nothing in that storage"),
        ("../../x", "does not exist; accepted: an existing directory"),
        ("a/b@../../c", "is not on this machine and the Hugging Face hub did not give it"),
        ("~nobody_of_this_name/x", "begins with a user that this machine does not know"),
        # From Python 3.14 on a path that is too long does not exist.
        ("a" * 300, "cannot be read|hub did not give it"),
        ("/" + "a" * 5000, "cannot be read|does not exist"),
        ("a\0b", "holds a NUL character"),
    ],
)
def test_a_model_of_a_wild_name_is_one_sentence(name: str, expected: str) -> None:
    values = {"input": ["packaged:sample.csv"], "output": "x", "members": {"llama": {"kind": "llama", "model": name}}}
    with pytest.raises(RunError, match=expected) as caught:
        check(Settings.model_validate(values))
    assert "\n" not in str(caught.value)
