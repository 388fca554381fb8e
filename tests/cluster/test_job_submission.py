"""`ray job submit` against a local head with its dashboard and token authentication: run, status, logs, stop, go on."""

import csv
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.lightgbm.texts import conversations
from tests.tiny_llama import make_adapter, make_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
ROWS, SHARD_ROWS = 2400, 24


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node of its own; gives the environment of its clients."""
    gcs, dashboard = free_port(), free_port()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # of which `python` an entry point is
    }
    command = [RAY, "start", "--head", "--block", f"--port={gcs}", "--num-cpus=2", "--num-gpus=0"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    # A Ray that these tests hold already has the agent's usual port, and a head without an agent takes no job.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    client = environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "NO_COLOR": "1"}
    try:
        wait_for(lambda: ray_job(client, "list").returncode == 0, 120, lambda: log.read_text())
        yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny random judge that takes long enough to be stopped."""
    folder = tmp_path_factory.mktemp("run")
    make_model(folder / "llama")
    make_adapter(folder / "adapter")
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for number, row in enumerate(conversations(ROWS, seed=4).to_pylist()):
            writer.writerow([number, row["prompt"], row["response_a"], row["response_b"]])
    llama = {"kind": "llama", "model": str(folder / "llama"), "adapter": str(folder / "adapter"), "batch_tokens": 64}
    values = {"input": str(folder / "in.csv"), "output": str(folder / "out"), "shard_rows": SHARD_ROWS}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**values, "members": {"llama": llama}}))
    return path


def ray_job(client: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RAY, "job", *arguments], env=client, cwd=ROOT, capture_output=True, text=True, check=False)


def submit(client: dict[str, str], config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = json.dumps({"excludes": [".git", "runs", ".venv", "shared"]})
    entry = ["--", "python", "jobs/score.py", "--config", str(config)]
    return ray_job(client, "submit", *options, "--working-dir", ".", "--runtime-env-json", environment, *entry)


def wait_for(happened: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, told()
        time.sleep(0.5)


def scored(config: Path) -> dict[str, int]:
    """Returns the shards with scores and when each was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in config.parent.glob("out/scores/llama/*.parquet")}


def test_a_submitted_job_is_stopped_goes_on_and_tells_how_far_it_is(head: dict[str, str], config: Path) -> None:
    def submitted() -> bool:
        told.append(submit(head, config, "--no-wait", "--submission-id", "first"))
        return told[-1].returncode == 0

    # The dashboard answers before it has an agent that takes jobs.
    told: list[subprocess.CompletedProcess[str]] = []
    wait_for(submitted, 120, lambda: told[-1].stdout + told[-1].stderr)

    def logs() -> str:
        return ray_job(head, "logs", "first").stdout

    wait_for(lambda: len(scored(config)) >= 3, 180, logs)
    assert "RUNNING" in ray_job(head, "status", "first").stdout
    assert ray_job(head, "stop", "first").returncode == 0
    assert "was stopped" in ray_job(head, "status", "first").stdout
    kept = scored(config)
    assert 3 <= len(kept) < ROWS // SHARD_ROWS
    assert not (config.parent / "out" / "submission.csv").exists()

    second = submit(head, config)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "succeeded" in second.stdout
    assert re.search(r"^llama: [\d,]+ of [\d,]+ \(\d+%\) rows after", second.stdout, re.MULTILINE), second.stdout
    after = scored(config)
    assert len(after) == ROWS // SHARD_ROWS
    assert {name: after[name] for name in kept} == kept, "what the first job had scored was scored again"
    with (config.parent / "out" / "submission.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [str(number) for number in range(ROWS)]


def test_nobody_submits_without_the_token(head: dict[str, str], config: Path) -> None:
    stranger = {key: value for key, value in head.items() if not key.startswith("RAY_AUTH")}
    refused = ray_job(stranger | {"HOME": str(config.parent), "RAY_AUTH_MODE": "disabled"}, "list")
    assert refused.returncode != 0
