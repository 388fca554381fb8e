"""Scores meet their labels by id, whatever the order, the shards and the rows that have only one of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lmsys_ray.data.labels import read_labels
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.evaluation.labelled_scores import join, settings_of
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import read_table, write_table
from tests.evaluation.runs import drawn, make_run, write_labels

ROWS = 150


def test_labels_in_any_order_meet_the_scores_of_their_ids(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    run, settings = make_run(tmp_path, [f"prompt {n}" for n in range(ROWS)], {"m": truth}, {"m": 1.0})
    order = np.random.default_rng(1).permutation(ROWS)
    write_labels(tmp_path / "labels.csv", labels[order], [f"id{n}" for n in order])
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    np.testing.assert_array_equal(joined.labels, labels)
    np.testing.assert_allclose(joined.members["m"], truth, atol=1e-6)
    np.testing.assert_allclose(joined.members["m"].sum(axis=1), 1, atol=1e-12)


def test_rows_on_one_side_alone_and_rejected_rows_are_counted(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    prompts = ["" if n in (3, 70, 140) else f"prompt {n}" for n in range(ROWS)]
    run, settings = make_run(tmp_path, prompts, {"m": truth}, {"m": 1.0})
    ids = [f"id{n}" for n in range(100)] + ["unknown"]
    write_labels(tmp_path / "labels.csv", [*labels[:100], 0], ids)
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    counts = joined.counts
    assert (counts.run, counts.labels, counts.judged, counts.rejected) == (150, 101, 98, 2)
    assert (counts.only_run, counts.only_labels) == (50, 1)
    assert joined.rejected_labels.tolist() == labels[[3, 70]].tolist()
    kept = [n for n in range(100) if n not in (3, 70)]
    np.testing.assert_allclose(joined.members["m"], truth[kept], atol=1e-6)


def test_rows_that_a_member_outside_of_the_blend_could_not_score_are_no_priors(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    prompts = ["" if n in (3, 70) else f"prompt {n}" for n in range(ROWS)]
    run, settings = make_run(tmp_path, prompts, {"m": truth, "n": truth, "out": truth}, {"m": 1.0, "n": 1.0, "out": 0})
    for member, row in (("out", 10), ("out", 11), ("n", 12)):
        file = run.score(member, 0)
        scores = read_table(file)
        reason = scores["reason"] if "reason" in scores.column_names else pa.nulls(scores.num_rows, pa.string())
        failed = pc.equal(scores["row"], row)
        scores = scores.drop_columns([name for name in scores.column_names if name == "reason"])
        write_table(scores.append_column("reason", pc.if_else(failed, "too long", reason)), file)
    write_labels(tmp_path / "labels.csv", labels[:60])
    counts = join(run, settings, read_labels(str(tmp_path / "labels.csv"))).counts
    assert (counts.judged, counts.rejected, counts.set_aside, counts.priors) == (56, 2, 2, 3)
    assert (counts.only_run, counts.only_labels) == (90, 0)


def test_labels_of_one_prompt_are_refused(tmp_path: Path) -> None:
    truth, _ = drawn(10)
    run, settings = make_run(tmp_path, [f"same{' ' * n}" for n in range(10)], {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", [0, 1] * 5)
    with pytest.raises(RunError, match="all 10 rows are of one prompt; label more prompts"):
        join(run, settings, read_labels(str(tmp_path / "labels.csv")))


def test_prompts_and_slices_are_told_apart(tmp_path: Path) -> None:
    truth, labels = drawn(4, seed=3)
    labels[:2] = [0, 1]
    prompts = ['["What is rain?"]', '["что такое дождь"]', '["what is  RAIN?"]', '["雨是什么"]']
    run, settings = make_run(tmp_path, prompts, {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", labels, sources=["web", "books", "web", ""])
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    assert joined.slices["script"].tolist() == ["Latin", "Cyrillic", "Latin", "Han"]
    assert joined.slices["source"].tolist() == ["web", "books", "web", None]
    assert joined.prompts[0] == joined.prompts[2]
    assert len(set(joined.prompts.tolist())) == 3


def test_both_orders_are_kept_where_there_are_two(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    other = drawn(ROWS, seed=9)[0]
    members, weights = {"twice": truth, "once": truth}, {"twice": 0.5, "once": 0.5}
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(ROWS)], members, weights, swapped={"twice": other})
    write_labels(tmp_path / "labels.csv", labels)
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    assert list(joined.orders) == ["twice"]
    np.testing.assert_allclose(joined.orders["twice"], [truth, other], atol=1e-6)
    np.testing.assert_allclose(joined.members["twice"], (truth + other) / 2, atol=1e-6)


def test_a_member_without_weight_is_judged_where_it_was_scored(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    weights = {"m": 1.0, "scored": 0.0, "absent": 0.0}
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(ROWS)], {"m": truth, "scored": truth}, weights)
    write_labels(tmp_path / "labels.csv", labels)
    assert list(join(run, settings, read_labels(str(tmp_path / "labels.csv"))).members) == ["m", "scored"]


def test_no_common_id_is_refused(tmp_path: Path) -> None:
    truth, labels = drawn(10)
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(10)], {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "labels.csv", labels, [f"other{n}" for n in range(10)])
    with pytest.raises(RunError, match="no id of the labels is in"):
        join(run, settings, read_labels(str(tmp_path / "labels.csv")))


def test_labels_of_one_class_or_of_rejected_rows_alone_are_refused(tmp_path: Path) -> None:
    truth, _ = drawn(10)
    run, settings = make_run(tmp_path, ["", *(f"p{n}" for n in range(9))], {"m": truth}, {"m": 1.0})
    write_labels(tmp_path / "same.csv", [1] * 10)
    with pytest.raises(RunError, match="all 9 rows are labelled b"):
        join(run, settings, read_labels(str(tmp_path / "same.csv")))
    write_labels(tmp_path / "rejected.csv", [1], ["id0"])
    with pytest.raises(RunError, match=r"all 1 labelled rows of .* were rejected"):
        join(run, settings, read_labels(str(tmp_path / "rejected.csv")))


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(ROWS)], {"m": truth}, {"m": 1.0})
    run.score("m", 1).unlink()
    write_labels(tmp_path / "labels.csv", labels)
    with pytest.raises(UsageError, match="lacks 1 of 3 shards of m; finish it"):
        join(run, settings, read_labels(str(tmp_path / "labels.csv")))


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a run directory"):
        settings_of(RunDirectory(tmp_path))
