"""GPU nodes come and go during a run: replicas start on those that come, shards of one that is lost go elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fault_tolerance.jobs import (
    ROOT,
    environment,
    make_lightgbm,
    make_llama,
    submission,
    write_input,
    write_settings,
)

ROWS, SHARD_ROWS, FREE_SHARDS = 400, 4, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A whole job on a cluster that begins without GPUs; returns its folder, the input's ids and what it said."""
    folder = tmp_path_factory.mktemp("job")
    ids = write_input(folder / "in.csv", ROWS)
    gate = folder / "gate"
    gate.mkdir()
    llama = {**make_llama(folder), "device": "gpu", "max_replicas": 8}
    write_settings(folder, {"llama": llama, "lightgbm": make_lightgbm(folder)}, shard_rows=SHARD_ROWS)
    path = os.pathsep.join([str(ROOT / "tests" / "fault_tolerance" / "gated"), str(ROOT)])
    gated = {"PYTHONPATH": path, "GATE": str(gate), "FREE_SHARDS": str(FREE_SHARDS)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fault_tolerance.changing_nodes", "--config", "run.yaml"],
        cwd=folder,
        env={**environment(folder), **gated, "RAY_health_check_period_ms": "1000"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, ids, done.stdout


@pytest.mark.slow
def test_every_row_is_scored_once_and_the_nodes_are_told(run: tuple[Path, list[str], str]) -> None:
    folder, ids, said = run
    assert [line[0] for line in submission(folder)] == ids
    for member in ("llama", "lightgbm"):
        files = sorted((folder / "run" / "scores" / member).glob("*.parquet"))
        assert [row for file in files for row in pq.read_table(file)["row"].to_pylist()] == list(range(ROWS))
        assert f"{member}: {ROWS} rows" in said
    assert f"rows: {ROWS} read, {ROWS} scored, 0 rejected" in said
    line = r"^llama: 400 rows .*, on 4 nodes, replicas idle [\d.]+%, padding 0\.0%, micro-batches \d+% full.*$"
    assert re.search(line, said, re.MULTILINE), said
    assert "llama: waits for nodes with 1 GPU, the cluster has none" in said
    assert "llama: nodes with GPUs are now 4, with 4 in all" in said
    assert "llama: nodes with GPUs are now 3, with 3 in all" in said


@pytest.mark.slow
def test_nodes_that_come_do_their_share_and_one_that_goes_leaves_its_shards_to_others(
    run: tuple[Path, list[str], str],
) -> None:
    folder, _, _ = run
    told = json.loads((folder / "run" / "nodes.json").read_text())
    assert told["left"] == 4
    by = told["by"]["llama"]
    assert set(by) == set(told["nodes"].values()), "each GPU node scored shards"
    assert sum(by.values()) == ROWS // SHARD_ROWS
    for name in ("second", "third"):
        assert by[told["nodes"][name]] >= 10, f"{name}: {by}"
    assert by[told["nodes"]["lost"]] < by[told["nodes"]["second"]]
    assert sum(told["by"]["lightgbm"].values()) == ROWS // SHARD_ROWS
    assert not set(told["by"]["lightgbm"]) & set(by), "LightGBM stayed on the node with CPUs"
