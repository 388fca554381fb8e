"""A member that is judged on rows that it was trained on is named; one that only has the same ids is not."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.labels import read_labels
from lmsys_ray.data.trained_rows import FILE, read_digests, row_digests, write_digests
from lmsys_ray.errors import DamagedError
from lmsys_ray.evaluation.evaluate import evaluate
from lmsys_ray.evaluation.labelled_scores import join
from lmsys_ray.evaluation.trained_rows import seen_in_training
from lmsys_ray.evaluation.verdict import gains, verdict
from tests.evaluation.runs import SHARD_ROWS, blurred, drawn, make_run, write_labels

ROWS = 200


def rows(*cells: tuple[str, str, str]) -> pa.Table:
    return pa.table(dict(zip(CELLS, map(list, zip(*cells, strict=True)), strict=True)))


def test_a_digest_is_of_the_texts_however_they_are_written() -> None:
    written = rows(
        ("Why?", "Because.", "No idea."),
        ('["Why?"]', '["Because."]', '["No idea."]'),
        (" Why? ", "No  idea.", "Because.\n"),
        ("Why not?", "Because.", "No idea."),
        ("Why?", "Because. No idea.", ""),
    )
    first, as_json, swapped, other_prompt, other_answers = row_digests(written, "auto")
    assert first == as_json == swapped
    assert len({first, other_prompt, other_answers}) == 3


def test_digests_are_kept_beside_the_weights(tmp_path: Path) -> None:
    table = rows(("p", "a", "b"), ("q", "a", "b"), ("p", "b", "a"))
    write_digests(tmp_path, table, "auto")
    np.testing.assert_array_equal(read_digests(tmp_path), np.unique(row_digests(table, "auto")))
    assert len(read_digests(tmp_path)) == 2
    assert len(read_digests(tmp_path / "elsewhere")) == 0
    for damage in ("id\n1\n", "digest\nxyz\n", "digest\n" + "f" * 40):
        (tmp_path / FILE).write_text(damage)
        with pytest.raises(DamagedError, match="does not hold digests of rows"):
            read_digests(tmp_path)


def test_rows_seen_in_training_lead_the_verdict_and_stop_the_advice(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    prompts = [f"question {n}" for n in range(ROWS)]
    run, settings = make_run(tmp_path, prompts, {"m": truth, "other": blurred(truth, 0.9, 1)}, {"m": 0.1, "other": 0.9})
    trees = tmp_path / "trees"
    trees.mkdir()
    write_digests(trees, rows(*((f"question {n}", "another answer", "one answer") for n in range(50, 500))), "auto")
    member = settings.members["m"].model_copy(update={"artifacts": str(trees)})
    bare = settings.members["other"].model_copy(update={"artifacts": str(tmp_path / "bare")})
    (tmp_path / "bare").mkdir()
    settings = settings.model_copy(update={"members": {"m": member, "other": bare}})
    write_labels(tmp_path / "labels.csv", labels)
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    seen = seen_in_training(run, settings, joined.members)
    assert seen == {"m": (ROWS - 50, ROWS)}
    assert seen_in_training(run, settings, joined.members, most=65) == {"m": (2 * SHARD_ROWS - 50, 2 * SHARD_ROWS)}
    evaluation = evaluate(joined, settings, seen)
    assert verdict(evaluation)[0].startswith("m was trained on 150 of 200 rows of this run")
    assert not gains(evaluation)
    assert gains(evaluate(joined, settings))


def test_the_packaged_members_tell_what_they_were_trained_on() -> None:
    from lmsys_ray.storage.packaged import DIRECTORY

    for name in ("lightgbm", "smollm2-135m-lora"):
        used = json.loads((DIRECTORY / name / "metrics.json").read_text())["rows"]
        found = len(read_digests(DIRECTORY / name))
        assert 0.99 * (used.get("used") or used["training"]) < found <= (used.get("used") or used["training"])
