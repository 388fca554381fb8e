"""The training job: learns what is there to learn, judges it on prompts it did not see, and leaves whole artefacts."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.cli import train_lightgbm
from lmsys_ray.data.labelled_rows import read_labelled
from lmsys_ray.data.trained_rows import read_digests, row_digests
from lmsys_ray.errors import RunError
from lmsys_ray.members.lightgbm.scorer import LightGBMScorer
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.lightgbm.training import train as training
from lmsys_ray.metrics import log_loss
from tests.members.lightgbm.texts import conversations

LABELS = ("winner_model_a", "winner_model_b", "winner_tie")
Rows = list[dict[str, object]]
FAST = ("rounds=30", "rows_per_leaf=5", "learning_rate=0.2", "column_share=0.5", "threads=1")


def labelled(count: int = 240) -> Rows:
    """Returns conversations whose longer response wins, clearly longer or it is a tie; each prompt stands twice."""
    rows = conversations(count, seed=21).select(["prompt", "response_a", "response_b"]).to_pylist()
    for number, row in enumerate(rows):
        gap = len(row["response_a"]) - len(row["response_b"])
        chosen = 0 if gap > 150 else 1 if gap < -150 else 2
        row |= {"id": f"r{number}", "prompt": f"Prompt {number // 2}", "source": "xyz"[number % 3]}
        row |= {name: int(place == chosen) for place, name in enumerate(LABELS)}
    return rows


def write(rows: Rows, path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., None]:
    def run(rows: Rows, *more: str, sets: tuple[str, ...] = (), output: str = "model") -> None:
        file = write(rows, tmp_path / "labelled.csv")
        flags = [part for item in (*FAST, *sets) for part in ("--set", item)]
        arguments = ["--input", str(file), "--output", str(tmp_path / output), "--folds", "3", *more, *flags]
        train_lightgbm.main(arguments)

    return run


def metrics(directory: Path) -> dict:
    return json.loads((directory / "metrics.json").read_text())


@pytest.mark.parametrize("features", ["preference", "notebook"])
def test_what_can_be_learned_is_learned(train: Callable, tmp_path: Path, features: str) -> None:
    train(labelled(), sets=(f"features={features}", "words=50", "characters=80"))
    figures = metrics(tmp_path / "model")
    assert figures["held_out"]["lightgbm minus prior"]["log_loss"]["high"] < -0.2
    assert figures["rows"] == {"used": 240, "left_out": 0}
    assert [fold["rows"] for fold in figures["folds"].values()] == [80, 80, 80]
    scorer = LightGBMScorer(LightGBMSettings(kind="lightgbm", artifacts=str(tmp_path / "model")), "auto")
    rows = conversations(120, seed=22)
    gap = np.array([len(row["response_a"]) - len(row["response_b"]) for row in rows.to_pylist()])
    labels = np.select([gap > 150, gap < -150], [0, 1], 2)
    assert log_loss(scorer.score(rows).probabilities, labels) < 0.8


def test_held_out_probabilities_come_from_other_prompts(
    train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    rows = labelled()
    dataset = training._dataset

    def watched(matrices, labels, chosen, *more, **named):  # type: ignore[no-untyped-def]
        seen.append({int(number) // 2 for number in np.flatnonzero(chosen)})
        return dataset(matrices, labels, chosen, *more, **named)

    monkeypatch.setattr(training, "_dataset", watched)
    train(rows)
    with (tmp_path / "model" / "out_of_fold.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [row["id"] for row in rows]
    assert list(written[0]) == ["id", "a", "b", "tie", "fold", "label", "prompt"]
    # Three folds, two views: rows to fit on first and rows that stop it, then both together.
    assert len(seen) == 3 * 2 * 3
    for place in range(0, len(seen), 3):
        held_out = {number // 2 for number, row in enumerate(written) if row["fold"] == str(place // 6)}
        first, chosen_on, both = seen[place : place + 3]
        assert first
        assert chosen_on
        assert not first & chosen_on
        assert first | chosen_on == both
        assert not both & held_out
    probabilities = np.array([[float(row[name]) for name in ("a", "b", "tie")] for row in written])
    labels = np.array([[row[name] for name in LABELS] for row in rows]).argmax(axis=1)
    loss = metrics(tmp_path / "model")["held_out"]["lightgbm"]["log_loss"]["value"]
    assert log_loss(probabilities, labels) == pytest.approx(loss, abs=1e-5)


def test_labels_at_random_do_not_look_learned(train: Callable, tmp_path: Path) -> None:
    """Rounds chosen on the rows that are then judged would be those on which noise happens to fit."""
    rows = labelled()
    chosen = [[row[name] for name in LABELS] for row in rows]
    losses = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(rows))
        shuffled = [row | dict(zip(LABELS, chosen[place], strict=True)) for row, place in zip(rows, order, strict=True)]
        train(shuffled, sets=("learning_rate=0.1", "rows_per_leaf=20", "views=[all]"), output=f"model-{seed}")
        losses.append(metrics(tmp_path / f"model-{seed}")["held_out"]["lightgbm minus prior"]["log_loss"]["value"])
    assert np.mean(losses) > 0


def test_cells_are_read_in_the_form_that_is_asked_for(train: Callable, tmp_path: Path) -> None:
    rows = labelled()
    rows[5]["response_a"] = '["a list that breaks off'
    train(rows, sets=("rounds=4",))
    assert metrics(tmp_path / "model")["rows"] == {"used": 239, "left_out": 1}
    train(rows, sets=("rounds=4", "cells=text"), output="text")
    assert metrics(tmp_path / "text")["rows"] == {"used": 240, "left_out": 0}
    boosters = [(tmp_path / name / "booster-00.txt").read_text() for name in ("model", "text")]
    assert boosters[0] != boosters[1]


def test_boosters_that_never_split_are_told(train: Callable, capsys: pytest.CaptureFixture) -> None:
    rows = labelled()
    for number, row in enumerate(rows):  # without its one value of the column, a fold's rows are too few
        row["source"] = "x" if number < 180 else "y"
    train(rows, sets=("rounds=4", "rows_per_leaf=100", "fold_column=source"))
    assert "fold x: 2 of 2 boosters never split: they give class shares alone" in capsys.readouterr().out


def test_folds_can_be_the_values_of_a_column(train: Callable, tmp_path: Path) -> None:
    train(labelled(), sets=("fold_column=source",))
    assert list(metrics(tmp_path / "model")["folds"]) == ["x", "y", "z"]


def test_one_fold_or_all_rows_can_be_asked_for(train: Callable, tmp_path: Path) -> None:
    train(labelled(), "--fold", "1")
    assert list(metrics(tmp_path / "model")["folds"]) == ["1"]
    with (tmp_path / "model" / "out_of_fold.csv").open() as file:
        held_out = {row["id"] for row in csv.DictReader(file)}
    read = read_labelled([str(tmp_path / "labelled.csv")])
    used = read.conversations.filter([identity not in held_out for identity in read.ids])
    assert held_out
    np.testing.assert_array_equal(read_digests(tmp_path / "model"), np.unique(row_digests(used, "auto")))
    train(labelled(), "--fold", "-1", sets=("boosters=2", "views=[all]"), output="whole")
    assert metrics(tmp_path / "whole")["folds"] == {}
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "booster-00.txt",
        "booster-01.txt",
        "linear.json",
        "metadata.json",
        "metrics.json",
        "trained_rows.csv",
    ]


def test_training_again_gives_the_same_files(train: Callable, tmp_path: Path) -> None:
    train(labelled(), sets=("rounds=4",))
    train(labelled(), sets=("rounds=4", "threads=2"), output="again")
    for name in ("out_of_fold.csv", "metrics.json"):
        texts = [
            (tmp_path / directory / name).read_text().replace('"threads": 2', '"threads": 1')
            for directory in ("model", "again")
        ]
        assert texts[0] == texts[1]


def set_labels(value: object) -> Callable[[Rows], Rows]:
    return lambda rows: [rows[0] | {"winner_model_a": value}, *rows[1:]]


def one_class(rows: Rows) -> Rows:
    return [row | {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1} for row in rows]


def without_ties(rows: Rows) -> Rows:
    return [row | dict(zip(LABELS, (1 - number % 2, number % 2, 0), strict=True)) for number, row in enumerate(rows)]


def one_class_outside_z(rows: Rows) -> Rows:
    return [row if row["source"] == "z" else row | dict(zip(LABELS, (1, 0, 0), strict=True)) for row in rows]


def without_labels(rows: Rows) -> Rows:
    return [{key: value for key, value in row.items() if key != "winner_tie"} for row in rows]


@pytest.mark.parametrize(
    ("change", "arguments", "sets", "sentence"),
    [
        (without_labels, (), (), "has no column winner_tie"),
        (set_labels(1 / 3), (), (), "one of them must be 1 and the others 0"),
        (set_labels("nan"), (), (), "one of them must be 1 and the others 0"),
        (one_class, (), (), "there is nothing to learn from one class"),
        (without_ties, (), (), "no row to fit on is labelled tie, so that P(tie) would always be 0"),
        (without_ties, ("--fold", "-1"), (), "no row to fit on is labelled tie"),
        (one_class_outside_z, (), ("fold_column=source",), "fold z: no row to fit on is labelled b"),
        (list, (), ("rows_per_leaf=1000",), "no booster found a split in 240 rows with rows_per_leaf=1000"),
        (lambda rows: rows[:12], (), ("fold_column=source",), "its rounds cannot be chosen on a part of the others"),
        (lambda rows: rows[:4], (), (), "there are 2 distinct prompts for 3 folds"),
        (list, ("--fold", "3"), (), "--fold: 3 is not one of the 3 folds"),
        (list, ("--folds", "1"), (), "--folds: 1 is too few"),
        (list, (), ("fold_column=color",), "has no column color"),
        (list, (), ("leafs=3",), "--set: leafs is not an option; "),
        (list, (), ("column_share=2",), "--set: column_share = 2 is not accepted"),
    ],
)
def test_what_cannot_be_trained_on_is_told_and_leaves_nothing(
    train: Callable,
    tmp_path: Path,
    change: Callable[[Rows], Rows],
    arguments: tuple[str, ...],
    sets: tuple[str, ...],
    sentence: str,
) -> None:
    with pytest.raises(RunError, match=re.escape(sentence)) as raised:
        train(change(labelled()), *arguments, sets=sets)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["labelled.csv"]


def test_a_training_that_fails_on_the_way_leaves_nothing(
    train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_figures", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(labelled())
    assert [path.name for path in tmp_path.iterdir()] == ["labelled.csv"]
