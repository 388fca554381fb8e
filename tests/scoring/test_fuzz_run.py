"""Run directories that were damaged by chance: a start goes on to the same bytes or ends in a sentence."""

import os
import random
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.report.facts import read_facts
from lmsys_ray.report.gather import gather
from lmsys_ray.report.status import read_status
from lmsys_ray.report.status_lines import lines
from lmsys_ray.run_directory import lock
from lmsys_ray.run_directory.layout import RunDirectory
from tests.fault_tolerance.jobs import finish
from tests.local_job import make_settings, run_job, write_rows
from tests.scoring.run_damage import damage

ROWS = 24


class Killed(BaseException):
    pass


def killed_at(place: str, count: int):
    seen = []

    def die(at: str) -> None:
        seen.append(at)
        if seen.count(place) == count:
            raise Killed

    return die


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of one job: `whole`, `half` scored, stopped in the `ingest`; and `foreign`, on other rows."""
    folder = tmp_path_factory.mktemp("runs")
    write_rows(folder / "in.csv", ROWS, bad=(3, 13))
    run_job(make_settings(folder, output=str(folder / "whole")))
    with pytest.raises(Killed):
        run_job(make_settings(folder, output=str(folder / "half")), killed_at("scored", 4))
    with pytest.raises(Killed):
        run_job(make_settings(folder, output=str(folder / "ingest")), killed_at("scored", 2))
    run = RunDirectory(folder / "ingest")
    run.shard(2).unlink()
    run.rejects.unlink()
    manifest = run.read_manifest()
    assert manifest is not None
    run.write_manifest(manifest.model_copy(update={"ingested": None}))
    write_rows(folder / "other.csv", ROWS, prefix="foreign", bad=(2, 5, 14))
    run_job(make_settings(folder, output=str(folder / "foreign"), input=str(folder / "other.csv")))
    return folder


def sentence(error: RunError) -> str:
    said = str(error)
    assert said
    assert "\n" not in said
    assert len(said) < 1500
    return said


def look(run: RunDirectory) -> None:
    """Reads a run as `status.py` and `report.py` do."""
    try:
        assert lines(read_status(run, time.time()))
    except RunError as error:
        sentence(error)
    try:
        gather(read_facts(run), texts=True)
    except RunError as error:
        sentence(error)


def made(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("submission.csv", "rejects.jsonl", "scores.parquet")}


def goes_on(runs: Path, run: Path) -> bool:
    """Starts a run again; returns whether that went to its end, and asserts that it says why where it did not."""
    try:
        run_job(make_settings(runs, output=str(run)))
    except RunError as error:
        sentence(error)
        return False
    return True


def fuzz(runs: Path, folder: Path, seeds: range) -> tuple[int, int]:
    """Damages so many runs and starts each; returns how many went on and how many were refused."""
    expected, went_on, refused = made(runs / "whole"), 0, 0
    for seed in seeds:
        chance = random.Random(seed)
        state, run = chance.choice(["whole", "whole", "half", "ingest"]), folder / str(seed)
        shutil.copytree(runs / state, run)
        what = f"seed {seed}, {state} run, {damage(run, runs / 'foreign', chance)}"
        try:
            look(RunDirectory(run))
            if goes_on(runs, run):
                went_on += 1
            else:
                refused += 1
                put_back(runs / state, run)
                assert goes_on(runs, run)
            assert made(run) == expected
        except Exception as error:
            raise AssertionError(what) from error
        shutil.rmtree(run)
    return went_on, refused


def put_back(source: Path, run: Path) -> None:
    shutil.rmtree(run)
    shutil.copytree(source, run)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for a disk, or for a start on another machine."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.001)


def test_a_damaged_run_goes_on_or_is_refused(runs: Path, tmp_path: Path) -> None:
    went_on, refused = fuzz(runs, tmp_path, range(100))
    assert went_on > refused > 0


@pytest.mark.soak
def test_many_damaged_runs_go_on_or_are_refused(runs: Path, tmp_path: Path) -> None:
    went_on, refused = fuzz(runs, tmp_path, range(1000, 6000))
    print(f"{went_on} went on, {refused} were refused")


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)]
)
def test_a_damaged_run_as_a_user_starts_it(tmp_path: Path, seed: int) -> None:
    """The stored run of a release, with all kinds of members, by the command itself."""
    with tarfile.open(Path(__file__).parent / "stored_runs" / "0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    run, kept = tmp_path / "finished", tmp_path / "kept"
    shutil.copytree(run, kept)
    what = damage(run, tmp_path / "run", random.Random(seed))
    code, said = finish(tmp_path, "--output", "finished")
    assert "Traceback" not in said, f"{what}: {said}"
    if code:
        assert sum(line.startswith("error: ") for line in said.splitlines()) == 1, f"{what}: {said}"
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        code, said = finish(tmp_path, "--output", "finished")
    assert code == 0, f"{what}: {said}"
    for name in ("submission.csv", "rejects.jsonl", "preferences.jsonl", "leaderboard.json"):
        assert (run / name).read_bytes() == (kept / name).read_bytes(), what
