"""The command `jobs/train_shared_encoder.py` as users run it, on Ray Train."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.data.labelled_rows import read_labelled
from lmsys_ray.data.trained_rows import read_digests, row_digests
from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder
from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from tests.members.labelled import labelled_rows, write_rows
from tests.tiny_encoders import make_encoder

ROOT = Path(__file__).parents[4]
QUICK = ("max_length=64", "batch_tokens=512", "dtype=float32", "device=cpu")
QUICK += ("learning_rate=0.002", "head_learning_rate=0.02")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_encoder(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", labelled_rows(90, prompts=45))


def start(rows: Path, base: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    sets = [part for option in (*QUICK, *options) for part in ("--set", option)]
    command = [sys.executable, "jobs/train_shared_encoder.py", "--input", str(rows), "--output", str(output)]
    return subprocess.Popen(
        [*command, "--model", str(base), *sets],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def check_output(output: Path, rows: Path) -> None:
    """Demands a whole directory whose probabilities scoring repeats."""
    assert not output.with_name(f"{output.name}.partial").exists()
    note = json.loads((output / "scoring.json").read_text())
    member = SharedEncoderSettings(kind="shared_encoder", model=str(output), device="cpu", threads=1, **note)
    read = read_labelled([str(rows)])
    with (output / "out_of_fold.csv").open() as file:
        held_out = {row["id"]: [float(row[name]) for name in ("a", "b", "tie")] for row in csv.DictReader(file)}
    places = [i for i, identity in enumerate(read.ids) if identity in held_out]
    trained = np.setdiff1d(np.arange(len(read.ids)), places)
    digests = row_digests(read.conversations.take(trained), "auto")
    np.testing.assert_array_equal(read_digests(output), np.unique(digests))
    encoded = SharedEncoderEncoder(member).encode(read.conversations.take(places))
    found = SharedEncoderScorer(member).score(encoded).probabilities
    np.testing.assert_allclose(found, [held_out[read.ids[i]] for i in places], atol=1e-5)
    figures = json.loads((output / "metrics.json").read_text())
    assert figures["rows"]["held_out"] == len(held_out) > 0
    assert figures["shared encoder"]["log_loss"]["value"] < figures["prior"]["log_loss"]["value"]


@pytest.mark.slow
def test_a_killed_training_goes_on_to_one_whole_member(rows: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("epochs=12", "checkpoint_steps=10", "patience=100")
    process = start(rows, base, output, *options)
    metrics = tmp_path / "out.partial" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    before = metrics.read_text().splitlines()
    said, error = start(rows, base, output, *options).communicate(timeout=600)
    assert output.is_dir(), error
    assert "on the held-out rows" in said
    after = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert after[0] == json.loads(before[0])
    assert [line["step"] for line in after] == sorted({line["step"] for line in after})
    check_output(output, rows)


@pytest.mark.slow
@pytest.mark.soak
def test_two_workers_train_one_member(rows: Path, base: Path, tmp_path: Path) -> None:
    _, error = start(rows, base, tmp_path / "out", "workers=2", "epochs=4").communicate(timeout=600)
    assert (tmp_path / "out").is_dir(), error
    check_output(tmp_path / "out", rows)


@pytest.mark.slow
@pytest.mark.soak
def test_a_failure_of_a_worker_is_one_sentence_and_leaves_no_output(rows: Path, base: Path, tmp_path: Path) -> None:
    process = start(rows, base, tmp_path / "out", "learning_rate=1e30", "warmup=0")
    _, error = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "is not finite; lower learning_rate" in error.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_told_before_anything_starts(rows: Path, base: Path, tmp_path: Path) -> None:
    process = start(rows, base, tmp_path / "out", "epoch=8")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.startswith("error: --set: epoch")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
