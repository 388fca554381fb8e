"""Files that kill every process that reads them, and files that are replaced while the cluster starts."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import finish, start, write_input, write_settings

pytestmark = pytest.mark.slow


def test_a_file_that_kills_its_readers_is_named(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 40)
    write_input(tmp_path / "kills-read.csv", 40)
    inputs = [str(tmp_path / "in.csv"), str(tmp_path / "kills-read.csv")]
    write_settings(tmp_path, {"lightgbm": lightgbm}, input=inputs, max_deaths=2)
    code, said = finish(tmp_path, poisoned=True)
    assert code == 1, said
    assert "kills-read.csv: 2 processes died while reading it" in said
    assert "input: reading" in said, "each death is told"
    assert "Traceback" not in said
    (began,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]
    assert began["exit"] == 1
    assert began["deaths"] == {"input": 2}
    first, second = began["died_at"]["input"]
    assert 0 < first < second
    assert "kills-read.csv: 2 processes died" in began["error"]


def test_input_replaced_while_the_cluster_starts_ends_the_run(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 40)
    write_input(tmp_path / "other.csv", 41)
    write_settings(tmp_path, {"lightgbm": lightgbm})
    process = start(tmp_path)
    while process.poll() is None and not (tmp_path / "run" / "manifest.json").exists():
        time.sleep(0.01)
    os.replace(tmp_path / "other.csv", tmp_path / "in.csv")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 1, said
    assert f"error: input: {tmp_path}/in.csv was replaced after this start had taken its digest" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("run/shards/*.parquet"))
    assert not (tmp_path / "run" / "submission.csv").exists()
