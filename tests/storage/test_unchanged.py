"""Input and artefacts that are replaced after their digest was taken end the run by a sentence, not in wrong rows."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lmsys_ray.errors import ReplacedError, RunError
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage import unchanged
from lmsys_ray.storage.contents import content
from lmsys_ray.storage.unchanged import FileStamp, Original
from tests.local_job import Hook, make_settings, run_job, write_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def renamed(path: Path, other: Path) -> None:
    shutil.copy(other, path.with_name("aside"))
    os.replace(path.with_name("aside"), path)


def written_over(path: Path, other: Path) -> None:
    """In place, with the size and the date that the file had."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(other.read_bytes()[: before.st_size].ljust(before.st_size, b"\n"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def once(at: str, deed: Callable[[], None], number: int = 1) -> Hook:
    """Does something when the job comes to a point for the `number`th time."""
    left = [number]

    def hook(place: str) -> None:
        if place == at:
            left[0] -= 1
            if left[0] == 0:
                deed()

    return hook


def two_files(folder: Path) -> Settings:
    """A job on two files, of which the second fills the shards from the third on."""
    write_rows(folder / "in.csv", 20)
    write_rows(folder / "late.csv", 20, prefix="late", bad=(2,))
    write_rows(folder / "other.csv", 20, prefix="LATE", bad=(2,))
    return make_settings(folder, input=[str(folder / "in.csv"), str(folder / "late.csv")])


@pytest.mark.parametrize("replace", [renamed, written_over])
@pytest.mark.parametrize(("at", "number"), [("ingest", 1), ("read", 1), ("read", 2)])
def test_replaced_input_leaves_none_of_its_rows(
    tmp_path: Path, replace: Callable[[Path, Path], None], at: str, number: int
) -> None:
    settings = two_files(tmp_path)
    expected = make_settings(tmp_path, input=settings.input, output=str(tmp_path / "expected"))
    run_job(expected)
    late = tmp_path / "late.csv"
    kept = late.read_bytes()
    swap = once(at, lambda: replace(late, tmp_path / "other.csv"), number)
    with pytest.raises(RunError, match=r"input: .*late\.csv (was replaced after|changed while it was read)"):
        run_job(settings, swap)
    assert len(list(tmp_path.glob("run/shards/*.parquet"))) <= 2, "of the first file alone"
    with pytest.raises(RunError, match="was made with input = "):
        run_job(settings)
    late.write_bytes(kept)
    run_job(settings)
    for name in ("submission.csv", "rejects.jsonl", "shards/00004.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_input_that_is_put_back_before_its_end_is_noticed(tmp_path: Path) -> None:
    """By the times that no program sets back: the digest before and after is the same."""
    settings = two_files(tmp_path)
    late, aside, places = tmp_path / "late.csv", tmp_path / "first.csv", []
    time.sleep(unchanged._TICK_SECONDS + 0.1)

    def swap(place: str) -> None:
        places.append(place)
        if places.count("open") == 2 and place == "open":
            os.replace(late, aside)
            shutil.copy(tmp_path / "other.csv", late)
        elif aside.exists():
            os.replace(aside, late)

    with pytest.raises(RunError, match=r"late\.csv changed while it was read"):
        run_job(settings, swap)
    assert len(list(tmp_path.glob("run/shards/*.parquet"))) <= 2
    assert run_job(settings).ingested.lines == 40
    assert "LATE" not in (tmp_path / "run" / "submission.csv").read_text()


@pytest.mark.parametrize("replace", [renamed, written_over])
def test_replaced_artefacts_score_nothing(tmp_path: Path, replace: Callable[[Path, Path], None]) -> None:
    settings = make_settings(tmp_path)
    model = tmp_path / "judge" / "model.txt"
    swap = once("pass", lambda: replace(model, tmp_path / "other" / "model.txt"))
    with pytest.raises(RunError, match=r"^members\.judge\.artifacts: .*judge was replaced after this start had taken"):
        run_job(settings, swap)
    assert not list(tmp_path.glob("run/scores/judge/*"))
    model.write_text("judge")
    assert run_job(settings).ingested.lines == 40


def original(path: Path) -> Original:
    look = FileStamp.at(path)
    return Original("members.judge.model", str(path), content(path)["digest"], look)


def test_a_model_is_read_again_only_where_its_files_look_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a copy of its own, once, however many replicas it has."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w" * 1000)
    time.sleep(unchanged._TICK_SECONDS + 0.1)
    seen, taken = original(tmp_path / "model"), []

    def counted(path: Path) -> dict:
        taken.append(path)
        return content(path)

    monkeypatch.setattr(unchanged, "content", counted)
    for _ in range(3):
        with seen.unchanged():
            pass
    assert taken == []
    os.utime(tmp_path / "model" / "weights")
    time.sleep(unchanged._TICK_SECONDS + 0.1)
    for _ in range(3):
        with seen.unchanged():
            pass
    assert len(taken) == 1
    (tmp_path / "model" / "weights").write_bytes(b"v" * 1000)
    with pytest.raises(ReplacedError, match=r"members\.judge\.model: .* was replaced"):
        seen.check()
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(RunError, match=r"model is not there on .*; put it where all machines see it"):
        seen.check()
