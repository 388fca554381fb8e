"""`jobs/calibrate.py` on a run of real members: its settings blend the run anew as it said, and nothing is scored."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmsys_ray.cli import calibrate as command
from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.data.labels import read_labels
from lmsys_ray.evaluation.calibration import METHODS, calibrate
from lmsys_ray.evaluation.calibration_report import calibration_yaml
from lmsys_ray.evaluation.labelled_scores import join, settings_of
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from tests.evaluation.runs import blurred, drawn, make_run, write_labels
from tests.evaluation.test_evaluate_command import job
from tests.fault_tolerance.jobs import make_lightgbm, write_input, write_settings

ROWS = 120


def submission(folder: Path) -> np.ndarray:
    return np.loadtxt(folder / "run" / "submission.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3))


@pytest.mark.slow
def test_a_run_is_blended_anew_as_predicted_without_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = write_input(tmp_path / "in.csv", ROWS)
    generator = np.random.default_rng(3)
    scores = generator.normal(0, 2, (ROWS, 2)).astype(np.float32)
    chance = 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    labels = np.where(generator.random(ROWS) < 0.2, 2, generator.random(ROWS) > chance)
    with (tmp_path / "two.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "score_a", "score_b"])
        writer.writerows([name, *row] for name, row in zip(ids, scores.tolist(), strict=True))
    write_labels(tmp_path / "labels.csv", labels, ids)
    trees = make_lightgbm(tmp_path)
    packaged = {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}
    members = {"trees": trees, "packaged": packaged, "reward": {"kind": "scores", "path": "two.csv"}}
    write_settings(tmp_path, members)
    first = job("score", "--config", "run.yaml", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    before = submission(tmp_path)

    done = job("calibrate", "--run", "run", "--labels", "labels.csv", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for shown in ("calibrated on 120 rows", "class prior", "trees", "reward", "linear blend (in use", "chosen: "):
        assert shown in done.stdout
    told = done.stdout.splitlines()[-1].removeprefix("to blend the run with it: score.py ")

    run = RunDirectory(str(tmp_path / "run"))
    settings = settings_of(run)
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    assert list(joined.differences) == ["reward"]
    calibrated = calibrate(joined, settings)
    known = {**joined.members, **joined.differences}
    assert (tmp_path / "run" / "calibration.yaml").read_text() == calibration_yaml(calibrated, settings)

    again = job("score", *told.split(), folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "rows/s" not in again.stdout
    expected = calibrated.fits[calibrated.chosen].of(known)
    np.testing.assert_allclose(submission(tmp_path), expected, atol=1e-6)
    assert np.abs(expected - before).max() > 0.01

    monkeypatch.chdir(tmp_path)
    for method in METHODS:
        (tmp_path / "layer.yaml").write_text(calibration_yaml(replace(calibrated, chosen=method), settings))
        flags = ["--config", str(run.path / "settings.yaml"), "--config", str(tmp_path / "layer.yaml")]
        with Display() as display:
            assert score(score_settings(parser().parse_args(flags)), display).scored == {}
        np.testing.assert_allclose(submission(tmp_path), calibrated.fits[method].of(known), atol=1e-6)


@pytest.mark.parametrize(
    ("prog", "score_command"), [("calibrate.py", "score.py"), ("lmsys-ray calibrate", "lmsys-ray score")]
)
def test_the_next_command_is_named_alike_and_finds_a_run_that_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prog: str, score_command: str
) -> None:
    truth, labels = drawn(200)
    members = {"good": blurred(truth, 0.1, 1), "poor": blurred(truth, 0.9, 2)}
    make_run(tmp_path, [f"question {n}" for n in range(200)], members, {"good": 0.5, "poor": 0.5})
    write_labels(tmp_path / "labels.csv", labels)
    moved = tmp_path / "a run"
    (tmp_path / "run").rename(moved)
    output = tmp_path / "new" / "fitted.yaml"
    command.main(["--run", str(moved), "--labels", str(tmp_path / "labels.csv"), "--output", str(output)], prog)
    told = capsys.readouterr().out.splitlines()[-1]
    configs = f"--config '{moved}/settings.yaml' --config {output} --output '{moved}'"
    assert told == f"to blend the run with it: {score_command} {configs}"
    assert yaml.safe_load(output.read_text())["members"]["good"]["weight"] > 0.5
    assert not (moved / "calibration.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--run", "nowhere", "--labels", "labels.csv"], 2, "name a run directory"),
        (["--run", "run", "--labels", "nowhere.csv"], 2, "nowhere.csv is not a file"),
        (["--run", "run", "--labels", "one_tie.csv"], 1, "nothing can be calibrated: class tie has 1 labelled row"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    truth, labels = drawn(20)
    run, _ = make_run(tmp_path, [f"question {n}" for n in range(20)], {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", labels)
    write_labels(tmp_path / "one_tie.csv", [0, 1] * 9 + [2], [f"id{n}" for n in range(19)])
    done = job("calibrate", *arguments, folder=tmp_path)
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (run.path / "calibration.yaml").exists()
