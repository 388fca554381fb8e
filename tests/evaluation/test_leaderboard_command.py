"""The command leaderboard in this process: the settings it takes, its table, and what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.cli import leaderboard
from lmsys_ray.errors import UsageError
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job

BOLD = re.compile(r"\x1b\[[01]m")

MODELS = ("fern", "a-model-with-a-name-that-is-long-2026-11-27", "kite", "moss\x1b[31m")


def finished(folder: Path, **changes: object) -> Settings:
    """Returns the settings of a finished run with four models, of which the last lost one row and won none."""
    settings = make_settings(folder)
    generator = np.random.default_rng(1)
    with (folder / "in.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "prompt", "response_a", "response_b", "model_a", "model_b", "winner"])
        for n in range(60):
            a, b = (MODELS[place] for place in generator.choice(3, 2, replace=False))
            rows.writerow(
                [n, f"p {n}", f"a {n}", "# b" * generator.integers(3), a, b, ("model_a", "model_b", "tie")[n % 3]]
            )
        rows.writerow([60, "p", "a", "b", MODELS[3], MODELS[0], "model_b"])
    values = settings.model_dump()
    values["outputs"]["leaderboard"] |= changes
    settings = Settings.model_validate(values)
    run_job(settings)
    return settings


def test_settings_of_the_run_hold_where_none_are_given(tmp_path: Path) -> None:
    settings = finished(tmp_path, ties="davidson", anchor="kite", bootstrap=5)
    run = Path(settings.output)
    before = (run / "leaderboard.json").read_bytes()
    leaderboard.main(["--run", str(run)])
    assert (run / "leaderboard.json").read_bytes() == before
    leaderboard.main(["--run", str(run), "--output", str(tmp_path / "other"), "--set", "anchor=null"])
    other = json.loads((tmp_path / "other" / "leaderboard.json").read_text())["settings"]
    assert other == {"outcomes": "expected", "ties": "davidson", "style": "none", "bootstrap": 5, "anchor": None}
    assert (run / "leaderboard.json").read_bytes() == before


@pytest.mark.parametrize("width", [40, 80])
def test_the_table_fits_the_terminal(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = finished(tmp_path, outcomes="labels", ties="davidson", style="both")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    capsys.readouterr()
    leaderboard.main(["--run", settings.output])
    table, _, lines = BOLD.sub("", capsys.readouterr().out).partition("\nties:")
    assert max(len(line.rstrip()) for line in table.splitlines()) <= width
    assert ("win rate" in table) == (width == 80)
    found = json.loads((Path(settings.output) / "leaderboard.json").read_text())
    for standing in found["models"]:
        if standing["strength"] is not None:
            assert f"{standing['strength']:.0f}" in table
    assert "none" in table
    assert "\x1b" not in table + lines
    assert "without strength: moss\\x1b[31m: it lost every battle" in lines
    assert "davidson with nu = " in "ties:" + lines
    assert "style: length " in lines
    assert "estimated from 60 battles" in lines


def test_a_run_that_names_no_models_is_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    run_job(settings)
    with pytest.raises(UsageError, match=r"have no column model_a, model_b; a leaderboard takes"):
        leaderboard.main(["--run", settings.output])


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    settings = finished(tmp_path)
    (Path(settings.output) / "scores" / "judge" / "00001.parquet").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of \d+ shards of judge; finish it"):
        leaderboard.main(["--run", settings.output])


def test_what_is_no_run_and_no_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a run directory"):
        leaderboard.main(["--run", str(tmp_path)])
    with pytest.raises(UsageError, match=r"ties = 'whole' is not accepted"):
        leaderboard.main(["--run", str(tmp_path), "--set", "ties=whole"])
