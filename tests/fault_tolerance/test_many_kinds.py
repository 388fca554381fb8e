"""One run with five members of five kinds on two pretended GPUs: killed and resumed, and joined by a sixth."""

import csv
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.labels import COLUMNS
from tests.checkpoints.test_heads import make_encoder
from tests.fault_tolerance.jobs import finish, make_lightgbm, make_llama, scored_files, start, submission, write_input
from tests.fault_tolerance.jobs import write_settings as write
from tests.fault_tolerance.test_driver import kill_when
from tests.members.samples import CHAT
from tests.tiny_llama import make_language_model, make_model

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1800)]

ROWS, SHARD_ROWS = 48, 8
QUESTION = "{prompt} ## {response_a} ## {response_b} ## Which?"
TWO_GPUS = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 2}', "LMSYS_RAY_PRETEND_GPUS": "1"}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Five members of five kinds, and as the sixth an encoder; one row's scores are not in the file of `others`."""
    folder = tmp_path_factory.mktemp("members")
    ids = write_input(folder / "in.csv", ROWS)
    drawn = np.random.default_rng(5).dirichlet([1, 1, 1], ROWS)
    with (folder / "others.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *COLUMNS])
        writer.writerows([identity, *map(repr, row.tolist())] for identity, row in zip(ids[1:], drawn[1:], strict=True))
    on_gpus = {"device": "gpu", "dtype": "float32", "batch_tokens": 4096, "weight": 0.2}
    chat = {**on_gpus, "chat_template": CHAT, "max_length": 256}
    make_encoder(folder / "encoder", "bert", max_position_embeddings=128)
    return {
        "llama": {**make_llama(folder), "device": "gpu", "weight": 0.2},
        "reward": {"kind": "reward", "model": str(make_model(folder / "reward", num_labels=1)), **chat},
        "judge": {"kind": "judge", "model": str(make_language_model(folder / "judge")), "prompt": QUESTION, **chat},
        "lightgbm": {**make_lightgbm(folder), "weight": 0.2},
        "others": {"kind": "scores", "path": str(folder / "others.csv"), "weight": 0.2},
        "encoder": {"kind": "classifier", "model": str(folder / "encoder"), "max_length": 128, **on_gpus},
    }


def run(folder: Path) -> str:
    process = start(folder, variables=TWO_GPUS)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def test_five_kinds_killed_and_resumed_and_a_sixth(tmp_path: Path, members: dict[str, dict[str, Any]]) -> None:
    five = {name: member for name, member in members.items() if name != "encoder"}
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
        ids = write_input(folder / "in.csv", ROWS)
        write(folder, five, shard_rows=SHARD_ROWS)
    whole, killed = folders
    said = run(whole)
    assert f"rows: {ROWS} read, {ROWS - 1} scored, 1 rejected" in said, said
    assert re.search(r"members.reward: without labels scale .* and tie ", said)
    assert re.search(r"judge: position bias: the response that stands first is preferred with ", said)
    expected = (whole / "run" / "submission.csv").read_bytes()

    chance, kills = random.Random(1), 0
    for files in (2, 10, 20):
        process = start(killed, variables=TWO_GPUS)
        kills += kill_when(process, lambda files=files: len(scored_files(killed)) >= files, chance.choice([0, 0.1]))
        time.sleep(1)
    assert kills >= 2
    run(killed)
    assert (killed / "run" / "submission.csv").read_bytes() == expected
    lines = submission(killed)
    assert [line[0] for line in lines] == ids
    assert "is not in" in (killed / "run" / "rejects.jsonl").read_text()

    before = {path: path.stat().st_mtime_ns for path in scored_files(killed)}
    write(killed, members, shard_rows=SHARD_ROWS)
    said = run(killed)
    assert f"encoder: {ROWS} rows in " in said, said
    for name in five:
        assert f"{name}: nothing to score, all shards were done" in said
    after = {path: path.stat().st_mtime_ns for path in scored_files(killed)}
    assert before.items() <= after.items()
    assert len(after) == len(before) + ROWS // SHARD_ROWS
    assert (killed / "run" / "submission.csv").read_bytes() != expected


def test_two_scores_are_linked_as_the_settings_say_without_scoring_again(
    tmp_path: Path, members: dict[str, dict[str, Any]]
) -> None:
    write_input(tmp_path / "in.csv", 32)
    reward = {**members["reward"], "device": "cpu", "link": "davidson", "scale": 2.0, "tie": 0.5}
    write(tmp_path, {"reward": reward})
    code, said = finish(tmp_path)
    assert code == 0, said
    tables = [pq.read_table(path) for path in scored_files(tmp_path)]
    d = np.concatenate([table["score_a"].to_numpy().astype(float) - table["score_b"].to_numpy() for table in tables])
    odds = np.stack([np.exp(d / 4), np.exp(-d / 4), np.full(len(d), 0.5)], axis=1)
    found = np.array([[float(p) for p in line[1:]] for line in submission(tmp_path)])
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=1e-6)
    assert "without labels" not in said

    write(tmp_path, {"reward": {**reward, "scale": 1.0}})
    code, said = finish(tmp_path)
    assert code == 0, said
    assert "reward: nothing to score, all shards were done" in said
    odds = np.stack([np.exp(d / 2), np.exp(-d / 2), np.full(len(d), 0.5)], axis=1)
    found = np.array([[float(p) for p in line[1:]] for line in submission(tmp_path)])
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=1e-6)
