"""A run that an earlier version began goes on to the bytes that it would have made, and nothing is scored twice."""

import json
import tarfile
from pathlib import Path

import pytest
import yaml

from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.fingerprint import check_same_run, digests, fingerprint
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings

KINDS = ["llama", "classifier"]
MISSING = {"judge": 39, "trees": 20}
"""Rows of the shards without scores; one of them is a reject."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The half-finished run, unpacked; see old_run/README.md."""
    with tarfile.open(Path(__file__).parent / "old_run" / "run.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def settings(folder: Path, kind: str) -> Settings:
    """Returns the settings of the run, whose files now lie below `folder`."""
    values = yaml.safe_load((folder / "run.yaml").read_text())
    judge, trees = values["members"]["judge"], values["members"]["trees"]
    judge |= {"kind": kind, "model": str(folder / judge["model"])}
    trees |= {"artifacts": str(folder / trees["artifacts"])}
    return Settings.model_validate({**values, "input": str(folder / "in.csv"), "output": str(folder / "run")})


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_before_is_known_by_either_name_of_its_kind(folder: Path, kind: str) -> None:
    manifest = RunDirectory(folder / "run").read_manifest()
    assert manifest is not None
    assert manifest.members["judge"]["kind"] == "llama"
    now = fingerprint(settings(folder, kind))
    check_same_run(manifest.fingerprint(), now, folder / "run")
    assert digests(now) == manifest.digests


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_before_goes_on_to_the_same_bytes(folder: Path, kind: str) -> None:
    run = folder / "run"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.glob("*/**/*.parquet")}
    assert len(before) == 12
    with Display() as display:
        report = score(settings(folder, kind), display)
    assert report.scored == MISSING
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert (run / "submission.csv").read_bytes() == (folder / "expected.csv").read_bytes()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["members"]["judge"]["kind"] == "classifier"
    assert len(manifest["starts"]) == 2
    with Display() as display:
        assert score(settings(folder, kind), display).scored == {}
