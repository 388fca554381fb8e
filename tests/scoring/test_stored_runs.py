"""A run that an earlier version began goes on to the bytes that it would have made, and nothing is scored twice."""

import csv
import json
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lmsys_ray.cli import evaluate, leaderboard, report, status
from lmsys_ray.report.status import read_status
from lmsys_ray.run_directory.formats import FORMAT
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.fingerprint import check_same_run, digests, fingerprint
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings

BEFORE, FIRST = "before-0.1.0", "0.1.0"
VERSIONS = [BEFORE, FIRST]
MISSING = {BEFORE: {"judge": 39, "trees": 20}, FIRST: {"judge": 39, "reward": 48, "trees": 19}}
"""Rows of the shards without scores; one of those that are read is a reject."""

KEPT = {BEFORE: 12, FIRST: 19}
"""Shards and scores that the half-finished run has."""

FILES = ("model", "artifacts", "path")
OUTPUTS = ("submission.csv", "preferences.jsonl", "doubtful.jsonl", "leaderboard.csv", "leaderboard.json")


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The job of a version, unpacked; see stored_runs/README.md."""
    with tarfile.open(Path(__file__).parent / "stored_runs" / f"{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


every = pytest.mark.parametrize(("folder", "version"), [(name, name) for name in VERSIONS], indirect=["folder"])
first = pytest.mark.parametrize("folder", [FIRST], indirect=True)


def settings(folder: Path, run: str = "run", **changes: object) -> Settings:
    """Returns the settings of the job, whose files now lie below `folder`."""
    values = yaml.safe_load((folder / "run.yaml").read_text())
    for member in values["members"].values():
        member |= {key: str(folder / member[key]) for key in FILES if key in member}
    places = {"input": str(folder / "in.csv"), "output": str(folder / run)}
    return Settings.model_validate({**values, **places, **changes})


def sealed_files(run: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.glob("*/**/*.parquet")}


@every
def test_a_stored_run_is_known_by_its_settings_and_the_digests_in_its_seals(folder: Path, version: str) -> None:
    run = RunDirectory(folder / "run")
    manifest = run.read_manifest()
    assert manifest is not None
    assert manifest.format == FORMAT
    now = fingerprint(settings(folder))
    check_same_run(manifest.fingerprint(), now, folder / "run")
    assert digests(now) == manifest.digests
    bound = RunDirectory(folder / "run", manifest.binding)
    assert len(bound.tables()) == KEPT[version]
    assert bound.remove_damaged() == []


@pytest.mark.parametrize("folder", [BEFORE], indirect=True)
@pytest.mark.parametrize("kind", ["llama", "classifier"])
def test_a_kind_is_known_by_its_former_name_too(folder: Path, kind: str) -> None:
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace("kind: llama", f"kind: {kind}"))
    manifest = RunDirectory(folder / "run").read_manifest()
    assert manifest is not None
    check_same_run(manifest.fingerprint(), fingerprint(settings(folder)), folder / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@every
def test_a_stored_run_goes_on_to_the_same_bytes(folder: Path, version: str) -> None:
    run = folder / "run"
    before = sealed_files(run)
    starts = len(json.loads((run / "manifest.json").read_text())["starts"])
    with Display() as display:
        assert score(settings(folder), display).scored == MISSING[version]
    after = sealed_files(run)
    assert {path: after[path] for path in before} == before
    assert len(before) == KEPT[version]
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["format"], len(manifest["starts"])) == (FORMAT, starts + 1)
    assert manifest["members"]["judge"]["kind"] == "classifier"
    if version == BEFORE:
        assert (run / "submission.csv").read_bytes() == (folder / "expected.csv").read_bytes()
    else:
        assert_same_outputs(run, folder / "finished")
    with Display() as display:
        assert score(settings(folder), display).scored == {}


def assert_same_outputs(run: Path, expected: Path) -> None:
    """Asserts that the outputs are the same bytes; of Parquet the same tables, which another Arrow writes otherwise."""
    for name in (*OUTPUTS, "rejects.jsonl"):
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name
    tables = sorted(str(path.relative_to(expected)) for path in expected.rglob("*.parquet"))
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*.parquet")) == tables
    for name in tables:
        assert pq.read_table(run / name).equals(pq.read_table(expected / name)), name


@first
def test_a_finished_run_is_blended_anew_without_scoring(folder: Path) -> None:
    finished, kept = folder / "finished", folder / "kept"
    shutil.copytree(finished, kept)
    before = sealed_files(finished)
    with Display() as display:
        assert score(settings(folder, "finished", temperature=2.0), display).scored == {}
    assert (finished / "submission.csv").read_bytes() != (kept / "submission.csv").read_bytes()
    with Display() as display:
        assert score(settings(folder, "finished"), display).scored == {}
    assert_same_outputs(finished, kept)
    assert {path: found for path, found in sealed_files(finished).items() if path in before} == before


@every
def test_status_tells_how_far_a_stored_run_is(folder: Path, version: str) -> None:
    found = read_status(RunDirectory(folder / "run"), time.time())
    assert (found.state, found.shards, found.ingested, found.rows) == ("died", 6, True, 60)
    assert found.members["judge"].scored == 2
    assert found.members["trees"].scored == 4
    assert found.rejects == (1 if version == BEFORE else 2)


@first
def test_the_commands_read_a_stored_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for name in ("run", "finished"):
        status.main([name])
        report.main([name])
        assert (folder / name / "report.html").stat().st_size > 10_000
    assert "finished: done" in capsys.readouterr().out

    leaderboard.main(["--run", "finished", "--output", "board"])
    for name in ("leaderboard.csv", "leaderboard.json"):
        assert (folder / "board" / name).read_bytes() == (folder / "finished" / name).read_bytes()


@pytest.mark.slow
@first
def test_a_stored_run_is_judged_by_the_labels_that_it_carries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    evaluate.main(["--run", "finished", "--output", "judged"])
    judged = json.loads((folder / "judged" / "evaluation.json").read_text())
    assert judged["verdict"][0].startswith("trees was trained on 58 of 58 rows of this run")
    assert judged["overall"]["blend in use"]["log_loss"]["value"] == pytest.approx(mean_loss(folder), abs=1e-6)


def mean_loss(folder: Path) -> float:
    """Returns the log loss of the stored submission on the rows that were scored."""
    with (folder / "in.csv").open(newline="") as file:
        winners = {row["id"]: [int(row[name]) for name in WINNERS] for row in reversed(list(csv.DictReader(file)))}
    with (folder / "finished" / "rejects.jsonl").open() as file:
        rejected = {row["id"] for row in map(json.loads, file) if "repeats" not in row["reason"]}
    with (folder / "finished" / "submission.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["id"] not in rejected]
    return float(np.mean([-np.log(np.dot(winners[row["id"]], [float(row[name]) for name in WINNERS])) for row in rows]))


WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")
