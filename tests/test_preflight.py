"""What is checked and settled before a run starts: names that lead nowhere, and what a moving name means."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from lmsys_ray.config import Settings
from lmsys_ray.errors import UsageError
from lmsys_ray.identity import identity
from lmsys_ray.members.llama.sources import AS_TRAINED, read_scoring
from lmsys_ray.preflight import checked

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
    found = checked(settings(tmp_path, model=name, adapter=name))
    assert found.members["judge"].model == f"some/judge@{COMMIT}"
    assert found.members["judge"].adapter == f"some/judge@{COMMIT}"
    assert identity(found)["members"]["judge"]["model"] == f"some/judge@{COMMIT}"


def test_local_and_packaged_models_keep_their_names(tmp_path: Path) -> None:
    trained = read_scoring("packaged:smollm2-135m-lora")
    as_trained = {key: trained[key] for key in AS_TRAINED if key in trained}
    given = settings(tmp_path, model=str(tmp_path), adapter="packaged:smollm2-135m-lora", **as_trained)
    assert checked(given) == given


def test_an_adapter_that_learnt_to_read_rows_otherwise_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "scoring.json").write_text(json.dumps({"template": "labelled"}))
    with pytest.raises(UsageError, match=r"members\.judge: adapter: .* was trained with template = 'labelled', this"):
        checked(settings(tmp_path, model=str(tmp_path), adapter=str(tmp_path)))
    assert checked(settings(tmp_path, model=str(tmp_path), adapter=str(tmp_path), template="labelled"))


def test_a_model_that_nobody_has_is_named(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("some/other is not on this machine and the Hugging Face hub did")):
        checked(settings(tmp_path, model="some/other"))
