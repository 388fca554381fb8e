"""A member that was trained on the run's rows: the report warns, and gives no advice that rests on them."""

from pathlib import Path

import pytest

from lmsys_ray.data.trained_rows import write_digests
from lmsys_ray.report.write import write_report
from lmsys_ray.run_directory.layout import RunDirectory
from tests.report.synthetic import make_run


def page(run: RunDirectory) -> str:
    return Path(str(write_report(run, texts=False))).read_text(encoding="utf-8")


def test_a_member_that_has_seen_the_rows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "run")
    before = page(run)
    assert "was trained on" not in before
    assert "Fitted weights and temperature change the log loss by" in before
    folder = tmp_path / "models" / "lightgbm"
    folder.mkdir(parents=True)
    rows = run.read_shard(0, ["prompt", "response_a", "response_b"])
    write_digests(folder, rows, "auto")
    after = page(run)
    assert f"Warning: lightgbm was trained on {rows.num_rows} of " in after
    assert "Fitted weights and temperature change the log loss by" not in after
