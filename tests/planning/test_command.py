"""`jobs/plan.py` as a user runs it, with models that take no time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.local_job import write_rows

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "jobs" / "plan.py")]


def run(*arguments: object, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=folder, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def config(tmp_path: Path, backbone: str, adapter: str) -> Path:
    write_rows(tmp_path / "in.csv", 40)
    member = {"kind": "classifier", "model": backbone, "adapter": adapter, "max_length": 64, "text": "json"}
    trees = {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}
    settings = {"input": str(tmp_path / "in.csv"), "members": {"judge": member, "trees": trees}, "max_error_rate": 1}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    return tmp_path / "run.yaml"


def plan(*arguments: object, folder: Path) -> dict[str, Any]:
    done = run(*arguments, "--json", folder=folder)
    assert len(done.stdout.splitlines()) == 1
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_probe_foresees_the_run_and_leaves_nothing(tmp_path: Path, config: Path) -> None:
    before = sorted(tmp_path.iterdir())
    found = plan("--config", config, "--probe", "16", folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert found["input"]["rows"] == 40
    assert found["input"]["rejects"] == 1
    assert found["input"]["scorable"] == 39
    assert found["shards"] == 1
    assert found["unknown"] == []
    judge, trees = found["members"]["judge"], found["members"]["trees"]
    assert judge["reads"]["rows"] == 39
    assert judge["speed"]["measured"]
    assert judge["speed"]["units"] == "tokens"
    assert judge["row"][0]["beginning"].startswith("<|begin|>")
    assert trees["reads"] is None
    assert trees["speed"]["units"] == "bytes"
    forecast = found["forecast"]
    assert forecast["measured"]
    assert forecast["seconds"] > found["passes"]["judge"]["seconds"] > 0
    assert forecast["gpus"] == 0


def test_without_a_probe_a_cpu_says_that_it_needs_one(tmp_path: Path, config: Path) -> None:
    done = run("--config", config, folder=tmp_path)
    assert "not known: --probe 64 measures it" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "row id" in done.stdout
    assert "<|begin|>" in done.stdout


def test_gpus_that_are_not_here_are_assumed_and_priced(tmp_path: Path, config: Path) -> None:
    arguments = ("--gpu", "l4", "--gpus", "2", "--price", "0.5", "--deadline", "8h", "--set", "shard_rows=4")
    found = plan("--config", config, *arguments, folder=tmp_path)
    assert found["machine"] == {"device": "L4", "gpus": 2, "cores": 16, "memory": 22 << 30, "here": False}
    assert found["passes"]["judge"]["replicas"] == 2
    assert not found["members"]["judge"]["speed"]["measured"]
    assert found["unknown"] == ["trees"]
    forecast = found["forecast"]
    assert forecast["cost"] == pytest.approx(0.5 * 2 * forecast["seconds"] / 3600)
    assert found["needed"]["gpus"] == 1
    told = run("--config", config, *arguments, folder=tmp_path).stdout
    assert "assumed: 40% of L4's peak" in told
    assert "1 GPU for 8 h: takes" in told
    late = plan("--config", config, "--gpu", "L4", "--deadline", "1s", folder=tmp_path)
    assert late["needed"]["gpus"] is None
    assert "longer than the deadline of 1 s" in late["warnings"][0]


def test_strict_says_that_rows_would_be_rejected(tmp_path: Path, config: Path) -> None:
    run("--config", config, "--strict", folder=tmp_path, code=3)
    run("--config", config, "--strict", "--limit", "2", folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gpu", "V100"], "error: --gpu: V100 is not known; accepted: T4, L4"),
        (["--gpus", "8"], "error: --gpus: 8, but this machine has no GPU; say which are meant with --gpu (T4, L4"),
        (["--price", "2.5"], "error: --price: 2.5 is of a GPU, and this machine has none; name one with --gpu"),
        (["--deadline", "soon", "--gpu", "T4"], "error: --deadline: soon is not a duration; give one such as 8h"),
        (["--sample", "0"], "error: --sample: 0 is not accepted; give a number from 1 on"),
        (["--probe", "0"], "error: --probe: 0 is not accepted; give a number from 1 on"),
        (["--input", "-"], "error: input: - is standard input, which only a run keeps; name a file"),
        (["--input", "missing.csv"], "error: input: missing.csv does not exist"),
        (["--set", "shard_rows=0"], "error: settings: shard_rows = 0 is not accepted"),
        (["--set", "members.judge.model=/no/such"], "members.judge.model = '/no/such' does not exist"),
        (["--gpu", "T4", "--set", "members.judge.gpus_per_replica=2"], "error: members.judge: replicas = auto with"),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path: Path, config: Path, arguments: list[str], sentence: str) -> None:
    done = run("--config", config, *arguments, folder=tmp_path, code=2)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_help_has_three_examples(tmp_path: Path) -> None:
    told = run("--help", folder=tmp_path).stdout
    assert told.count("\n  plan.py ") == 3
    for flag in ("--config", "--set", "--input", "--output", "--preset", "--limit", "--probe", "--gpus", "--deadline"):
        assert flag in told


def test_an_empty_input_is_told_like_any_other(tmp_path: Path, config: Path) -> None:
    (tmp_path / "in.csv").write_text("id,prompt,response_a,response_b\n")
    found = plan("--config", config, "--probe", "4", folder=tmp_path)
    assert found["input"]["rows"] == 0
    assert found["forecast"] is None
