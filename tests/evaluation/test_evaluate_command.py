"""`jobs/evaluate.py` as a user runs it, and `jobs/score.py` with the settings that it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.ensemble.blend import blend
from tests.evaluation.runs import blurred, drawn, make_run, write_labels

ROOT = Path(__file__).parents[2]
ROWS = 300


def job(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_evaluates_a_run_and_blends_it_anew_without_scoring(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    members = {"good": blurred(truth, 0.1, 1), "poor": blurred(truth, 0.9, 2)}
    swapped = {"good": blurred(truth, 0.2, 3)}
    prompts = ["", *(f"question {n}" for n in range(1, ROWS))]
    run, _ = make_run(tmp_path, prompts, members, {"good": 0.1, "poor": 0.9}, swapped)
    write_labels(tmp_path / "labels.csv", labels, sources=["web"] * ROWS)

    done = job("evaluate", "--run", "run", "--labels", "labels.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for shown in (
        "judged: 299 rows of 299 prompts",
        "1 labelled rows",
        "class prior",
        "web",
        "Latin",
        "standing first",
    ):
        assert shown in done.stdout

    report = json.loads((run.path / "evaluation" / "evaluation.json").read_text())
    assert set(report["position_bias"]) == {"good"}
    assert (run.path / "evaluation" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.path.rglob("*.tmp"))

    again = job("score", "--config", "run/evaluation/blend.yaml", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "nothing to score" in again.stdout
    submission = np.loadtxt(run.submission, delimiter=",", skiprows=1, usecols=(1, 2, 3))
    fitted = report["fits"]["weights and temperature"]
    scored = {"good": (members["good"] + swapped["good"]) / 2, "poor": members["poor"]}
    np.testing.assert_allclose(submission[1:], blend(scored, fitted["weights"], fitted["temperature"])[1:], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--run", "nowhere", "--labels", "labels.csv"], 2, "name a run directory"),
        (["--run", "run", "--labels", "nowhere.csv"], 2, "nowhere.csv is not a file"),
        (["--run", "run", "--labels", "input.csv"], 2, "has no column winner_model_a, winner_model_b, winner_tie"),
        (["--run", "run", "--labels", "strangers.csv"], 1, "no id of the labels is in "),
        (["--run", "run", "--labels", "one_prompt.csv"], 1, "label more"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    truth, labels = drawn(20)
    run, _ = make_run(tmp_path, [f"question {n}" for n in range(18)] + ["same"] * 2, {"m": truth[:20]}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", labels)
    write_labels(tmp_path / "strangers.csv", labels, [f"stranger{n}" for n in range(20)])
    write_labels(tmp_path / "one_prompt.csv", [0, 1], ["id18", "id19"])
    done = job("evaluate", *arguments, folder=tmp_path)
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (run.path / "evaluation").exists()


def test_an_evaluation_against_other_labels_is_not_overwritten(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    run, _ = make_run(tmp_path, [f"question {n}" for n in range(ROWS)], {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", labels)
    write_labels(tmp_path / "others.csv", np.roll(labels, 1))
    for _ in range(2):  # the same again is no loss
        assert job("evaluate", "--run", "run", "--labels", "labels.csv", folder=tmp_path).returncode == 0
    file = run.path / "evaluation" / "evaluation.json"
    before = file.read_bytes()
    refused = job("evaluate", "--run", "run", "--labels", "others.csv", folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: --output: {run.path / 'evaluation'} holds an evaluation against other labels; name another folder, "
        "or remove that one\n"
    )
    assert file.read_bytes() == before
    assert job("evaluate", "--run", "run", "--labels", "others.csv", "--output", "b", folder=tmp_path).returncode == 0
