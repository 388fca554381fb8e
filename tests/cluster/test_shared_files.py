"""What a node must see as the driver does, and what is said where it does not."""

import errno
import os
import time
from pathlib import Path

import pytest

from lmsys_ray.cluster import shared_files
from lmsys_ray.cluster.excluded_nodes import avoiding
from lmsys_ray.cluster.shared_files import SharedFiles
from lmsys_ray.processes import Process
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import Holder


def lock_text(token: str) -> str:
    return Holder(Process.current(), "2026-01-01 00:00:00 UTC", token, time.time()).text()


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedFiles:
    """What a driver sees of a run at work, of a model and of an input."""
    monkeypatch.setattr(shared_files, "_PAUSE", 0.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock.json").write_text(lock_text("this start"))
    (tmp_path / "model" / "part").mkdir(parents=True)
    (tmp_path / "model" / "part" / "weights").write_bytes(b"1234")
    (tmp_path / "in.csv").write_text("id,prompt\n")
    names = [str(tmp_path / "model"), str(tmp_path / "in.csv"), "org/model-of-the-hub", "s3://bucket/model"]
    return SharedFiles.of(RunDirectory(tmp_path / "run"), "this start", names)


def test_the_node_of_the_driver_sees_it_all(seen: SharedFiles, tmp_path: Path) -> None:
    assert seen.fault() is None
    (tmp_path / "run" / "shards").mkdir()  # what a run adds is no difference
    assert seen.fault() is None


def test_no_run_directory_there(seen: SharedFiles, tmp_path: Path) -> None:
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert seen.fault() == f"{tmp_path / 'run'} is not the run directory there"


def test_a_run_directory_that_cannot_be_written_there(
    seen: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shared_files.tempfile, "NamedTemporaryFile", refused)  # root may write anywhere
    assert seen.fault() == f"{tmp_path / 'run'} cannot be written there (Read-only file system)"


def test_a_look_leaves_nothing_behind(seen: SharedFiles, tmp_path: Path) -> None:
    assert seen.fault() is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock.json"]


@pytest.mark.parametrize("lock", [lock_text("of another start"), "[]", "no JSON", "null"])
def test_another_run_directory_there(seen: SharedFiles, tmp_path: Path, lock: str) -> None:
    (tmp_path / "run" / "lock.json").write_text(lock)
    assert seen.fault() == f"{tmp_path / 'run'} is another run directory there"


def test_other_files_of_a_model_there(seen: SharedFiles, tmp_path: Path) -> None:
    (tmp_path / "model" / "part" / "weights").write_bytes(b"12345")
    assert seen.fault() == f"{tmp_path / 'model'} is not the same there"


def test_no_input_there(seen: SharedFiles, tmp_path: Path) -> None:
    (tmp_path / "in.csv").unlink()
    assert seen.fault() == f"{tmp_path / 'in.csv'} is missing there"


def test_a_relative_name_that_leads_elsewhere_there(
    seen: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = SharedFiles.of(RunDirectory(tmp_path / "run"), "this start", ["in.csv"])
    assert here.fault() is None
    monkeypatch.chdir(tmp_path / "model")
    assert here.fault() == "in.csv is missing there; it is relative, give its absolute path"


def test_a_file_that_shows_late_is_waited_for(
    seen: SharedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "run" / "lock.json"
    text = lock.read_text()
    lock.unlink()
    monkeypatch.setattr(shared_files.time, "sleep", lambda seconds: lock.write_text(text))
    assert seen.fault() is None


def test_work_keeps_away_from_nodes_by_their_ids() -> None:
    assert avoiding([]) == {}
    assert avoiding({"b", "a"}) == {"label_selector": {"ray.io/node-id": "!in(a,b)"}}
