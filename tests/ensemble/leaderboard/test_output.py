"""The leaderboard of a whole run: made, made anew, removed, and the same bytes twice."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job

JOB = Path(__file__).parents[3] / "jobs" / "leaderboard.py"
MODELS = ("=moss", "fern", "kite")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    generator = np.random.default_rng(1)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", "response_a", "response_b", "model_a", "model_b", "winner"])
        for n in range(120):
            a, b = generator.choice(3, 2, replace=n % 10 == 0)
            winner = generator.choice(["model_a", "model_b", "tie"])
            rows.writerow([n, '["open' if n == 7 else f"p {n}", f"a {n}", "**b**", MODELS[a], MODELS[b], winner])
    return made


def read(settings: Settings) -> tuple[list[dict[str, str]], dict]:
    folder = Path(settings.output)
    with (folder / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / "leaderboard.json").read_text())


def with_outputs(settings: Settings, **changes: object) -> Settings:
    values = settings.model_dump()
    values["outputs"]["leaderboard"] |= changes
    return Settings.model_validate(values)


def test_a_run_ends_with_it_and_rates_are_those_of_the_submission(settings: Settings) -> None:
    run_job(settings)
    lines, found = read(settings)
    folder = Path(settings.output)
    with (folder / "submission.csv").open(newline="") as file:
        blend = {row["id"]: row for row in csv.DictReader(file)}
    with Path(settings.input[0]).open(newline="") as file:
        inputs = list(csv.DictReader(file))
    wins, count = dict.fromkeys(MODELS, 0.0), dict.fromkeys(MODELS, 0)
    for row in inputs:
        if row["id"] == "7" or row["model_a"] == row["model_b"]:
            continue
        half = float(blend[row["id"]]["winner_tie"]) / 2
        for side in "ab":
            wins[row[f"model_{side}"]] += float(blend[row["id"]][f"winner_model_{side}"]) + half
            count[row[f"model_{side}"]] += 1
    assert {line["model"]: int(line["battles"]) for line in lines} == count
    for line in lines:
        assert float(line["win_rate"]) == pytest.approx(wins[line["model"]] / count[line["model"]], abs=1e-4)
    assert np.mean([float(line["strength"]) for line in lines]) == pytest.approx(1000, abs=1e-3)
    assert found["counts"]["left_out"]["same_model"] > 0
    assert found["counts"]["left_out"]["unscored"] == 1

    before = [(folder / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.json")]
    run_job(settings)
    assert before == [(folder / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.json")]


def test_labels_count_where_they_are_asked_for(settings: Settings) -> None:
    run_job(with_outputs(settings, outcomes="labels"))
    lines, _ = read(settings)
    with Path(settings.input[0]).open(newline="") as file:
        fought = [row for row in csv.DictReader(file) if row["model_a"] != row["model_b"]]
    tied = {model: [row["winner"] == "tie" for row in fought if model in row.values()] for model in MODELS}
    ties = {model: np.mean(found) for model, found in tied.items()}
    assert {line["model"]: float(line["tie_rate"]) for line in lines} == pytest.approx(ties, abs=1e-4)


def test_it_is_made_anew_by_the_command(settings: Settings, tmp_path: Path) -> None:
    run_job(settings)
    made = read(settings)
    command = [sys.executable, str(JOB), "--run", settings.output]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert read(settings) == made
    assert all(model in told for model in MODELS)
    changes = ["--output", str(tmp_path / "b"), "--set", "anchor=kite", "--set", "style=both"]
    subprocess.run([*command, *changes], check=True)
    other = json.loads((tmp_path / "b" / "leaderboard.json").read_text())
    assert next(model["strength"] for model in other["models"] if model["model"] == "kite") == 1000
    for change, sentence in (("anchor=oak", "oak is none of the 3 models"), ("ancor=x", "did you mean anchor?")):
        ended = subprocess.run([*command, "--set", change], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr.count("\n")) in ((1, 1), (2, 1))
        assert sentence in ended.stderr


def test_it_is_gone_where_it_is_not_asked_for_and_refused_where_there_is_no_battle(
    settings: Settings, tmp_path: Path
) -> None:
    run_job(settings)
    run_job(with_outputs(settings, write=False))
    assert not list(Path(settings.output).glob("leaderboard*"))
    plain = make_settings(tmp_path / "plain")
    run_job(plain)
    assert not list(Path(plain.output).glob("leaderboard*"))
    with pytest.raises(RunError, match=r"no row of .* is a battle for a leaderboard"):
        run_job(with_outputs(plain, write=True))


def test_names_that_a_spreadsheet_would_run_are_escaped(settings: Settings) -> None:
    values = settings.model_dump()
    values["outputs"]["escape_formulas"] = True
    run_job(Settings.model_validate(values))
    lines, found = read(settings)
    assert {line["model"] for line in lines} == {"'=moss", "fern", "kite"}
    assert {model["model"] for model in found["models"]} == set(MODELS)
