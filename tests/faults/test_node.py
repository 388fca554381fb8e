"""A node of the cluster is lost during a pass: its shards are scored by the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.jobs import environment, make_llama, submission, write_input, write_settings


@pytest.mark.slow
def test_shards_of_a_lost_node_are_scored_elsewhere(tmp_path: Path) -> None:
    rows = 400
    ids = write_input(tmp_path / "in.csv", rows)
    write_settings(tmp_path, {"llama": make_llama(tmp_path)}, shard_rows=4)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.lose_node", "--config", "run.yaml"],
        cwd=tmp_path,
        env={**environment(tmp_path), "RAY_health_check_period_ms": "1000"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node lost after" in done.stdout
    assert "nodes at the end: 2" in done.stdout
    assert [line[0] for line in submission(tmp_path)] == ids
    assert f"rows: {rows} read, {rows} scored, 0 rejected" in done.stdout
