"""The command `jobs/train_classifier.py` as users run it: on Ray Train, killed half-way, with several workers."""

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
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.members.labelled import labelled_rows, write_rows

ROOT = Path(__file__).parents[4]
QUICK = ["max_length=128", "batch_tokens=512", "rank=4", "dtype=float32", "device=cpu"]
QUICK += ["learning_rate=0.01", "head_learning_rate=0.01"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", labelled_rows(90, prompts=45))


def start(rows: Path, base: Path, output: Path, *options: str, fold: int = 0) -> subprocess.Popen[str]:
    sets = [part for option in (*QUICK, *options) for part in ("--set", option)]
    command = [sys.executable, "jobs/train_classifier.py", "--input", str(rows), "--output", str(output)]
    return subprocess.Popen(
        [*command, "--model", str(base), "--fold", str(fold), *sets],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def check_output(output: Path, rows: Path, base: Path | None) -> None:
    """Demands a whole directory, of an adapter of `base` or of a model, whose probabilities scoring repeats."""
    assert not output.with_name(f"{output.name}.partial").exists()
    noted = json.loads((output / "scoring.json").read_text())
    text = {key: value for key, value in noted.items() if key in ClassifierSettings.model_fields}
    named = {"model": str(output)} if base is None else {"model": str(base), "adapter": str(output)}
    member = ClassifierSettings(kind="llama", **named, **text)
    read = read_labelled([str(rows)])
    with (output / "out_of_fold.csv").open() as file:
        held_out = {row["id"]: [float(row[name]) for name in ("a", "b", "tie")] for row in csv.DictReader(file)}
    places = [i for i, identity in enumerate(read.ids) if identity in held_out]
    trained = np.setdiff1d(np.arange(len(read.ids)), places)
    digests = row_digests(read.conversations.take(trained), "auto")
    np.testing.assert_array_equal(read_digests(output), np.unique(digests))
    scored = (
        ClassifierScorer(member).score(ClassifierEncoder(member).encode(read.conversations.take(places))).probabilities
    )
    np.testing.assert_allclose(scored, [held_out[read.ids[i]] for i in places], atol=1e-5)
    figures = json.loads((output / "metrics.json").read_text())
    assert figures["rows"]["held_out"] == len(held_out)
    product = "model" if base is None else "adapter"
    assert figures[product]["log_loss"]["value"] < figures["prior"]["log_loss"]["value"]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"{product} minus prior" in (output / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.soak
def test_two_workers_killed_half_way_go_on_to_one_whole_adapter(rows: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("workers=2", "epochs=10", "evaluate_steps=20", "checkpoint_steps=5", "patience=100")
    process = start(rows, base, output, *options)
    metrics = tmp_path / "out.partial" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    before = metrics.read_text().splitlines()
    out, error = start(rows, base, output, *options).communicate(timeout=300)
    assert output.is_dir(), error
    assert "step 20 of" not in out
    after = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert after[0] == json.loads(before[0])
    assert [line["step"] for line in after] == sorted({line["step"] for line in after})
    check_output(output, rows, base)


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM])
def test_a_signal_stops_a_training_at_once_and_says_how_to_go_on(
    rows: Path, base: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(rows, base, tmp_path / "out", "epochs=10000", "evaluate_steps=20", "patience=100000")
    metrics = tmp_path / "out.partial" / "metrics.jsonl"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert error.splitlines()[-1].startswith("stopped; what is done is kept, resume with: ")


@pytest.mark.slow
@pytest.mark.soak
def test_a_failure_of_a_worker_is_one_sentence_and_leaves_no_output(rows: Path, base: Path, tmp_path: Path) -> None:
    process = start(rows, base, tmp_path / "out", "targets=[no_such_layer]", fold=-1)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    sentences = [line for line in error.splitlines() if line.startswith("error: ")]
    assert sentences == [error.strip().splitlines()[-1]]
    assert "no_such_layer" in sentences[0]
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_told_before_anything_starts(rows: Path, base: Path, tmp_path: Path) -> None:
    process = start(rows, base, tmp_path / "out", "rnak=8")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("error: --set: rnak")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_all_weights_of_a_backbone_are_trained_and_scored_under_the_former_name(
    rows: Path, base: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("lora=none", "learning_rate=0.003", "epochs=6", "evaluate_steps=epoch", "label_smoothing=0.05")
    quick = [option for option in QUICK if not option.startswith(("rank", "learning_rate"))]
    sets = [part for option in (*quick, *options) for part in ("--set", option)]
    done = subprocess.run(
        [
            sys.executable,
            "jobs/train_lora.py",
            "--input",
            str(rows),
            "--output",
            str(output),
            "--model",
            str(base),
            *sets,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"the model lies in {output}"
    check_output(output, rows, None)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [*range(1, len(lines) + 1)]
