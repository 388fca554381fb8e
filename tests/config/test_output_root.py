"""A relative output is one of the working directory; of a submitted job, whose directory is lost, one that lasts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.config.output_root import ROOT_VARIABLE, local_output, output_path
from lmsys_ray.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own; the working directory is another."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    return tmp_path / "home"


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray sets for the driver of a submitted job."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")


def test_outside_of_jobs_it_lies_in_the_working_directory(home: Path) -> None:
    assert output_path("runs/a") == str(home.parent / "work/runs/a")
    assert output_path("./runs/../runs/a/") == str(home.parent / "work/runs/a")


@pytest.mark.usefixtures("submitted")
def test_of_a_submitted_job_it_lies_in_the_home(home: Path) -> None:
    assert output_path("runs/a") == str(home / "lmsys_ray/runs/a")


def test_the_setting_goes_before_the_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, "~/kept")
    assert output_path("runs/a") == str(home / "kept/runs/a")
    assert output_path("runs/a", "/shared") == "/shared/runs/a"
    assert output_path("runs/a", "s3://bucket/team") == "s3://bucket/team/runs/a"


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize("name", ["/shared/a", "s3://bucket/a"])
def test_a_whole_name_stays_as_it_is(name: str) -> None:
    assert output_path(name, "/elsewhere") == name


def test_a_tilde_is_the_home(home: Path) -> None:
    assert output_path("~/a") == str(home / "a")


def test_a_relative_root_is_refused_by_the_name_that_gave_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="output_root = shared is relative; give an absolute path or a URL"):
        output_path("a", "shared")
    monkeypatch.setenv(ROOT_VARIABLE, "shared")
    with pytest.raises(UsageError, match=f"{ROOT_VARIABLE} = shared is relative"):
        output_path("a")


def test_what_can_only_be_local_refuses_a_url() -> None:
    with pytest.raises(UsageError, match=r"--output: s3://bucket/a is not a local path"):
        local_output("s3://bucket/a")


@pytest.mark.usefixtures("submitted")
def test_the_default_run_of_a_submitted_job_is_told_with_its_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = score_settings(parser().parse_args([]))
    assert settings.output == str(home / "lmsys_ray/runs/sample")
    assert f"output: {settings.output}; a submitted job loses its working directory" in capsys.readouterr().out


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_every_command_that_writes_refuses_a_relative_root(job: str, tmp_path: Path) -> None:
    needed = {
        "calibrate.py": ["--run", "runs/a", "--labels", "labels.csv"],
        "evaluate.py": ["--run", "runs/a", "--labels", "labels.csv"],
        "leaderboard.py": ["--run", "runs/a"],
        "report.py": ["runs/a"],
        "status.py": ["runs/a"],
        "import_artifacts.py": ["--output", "a", "--pickles", "a"],
        "train_lightgbm.py": ["--output", "a", "--input", "a.csv"],
        "train_classifier.py": ["--output", "a", "--input", "a.csv", "--model", "m"],
        "train_shared_encoder.py": ["--output", "a", "--input", "a.csv", "--model", "m"],
        "train_lora.py": ["--output", "a", "--input", "a.csv", "--model", "m"],
        "simulate.py": ["--tokens-per-second", "1"],
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / job), *needed.get(job, [])],
        env={**os.environ, ROOT_VARIABLE: "shared"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.strip() == f"error: {ROOT_VARIABLE} = shared is relative; give an absolute path or a URL"
