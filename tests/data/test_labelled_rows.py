"""What a labelled file must hold before LoRA training starts, and the sentence where it does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.data.input_content import NOTED
from lmsys_ray.data.labelled_rows import read_labelled
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.run import claim, split_rows
from tests.members.labelled import COLUMNS, labelled_rows, write_rows

Row = list[object]


def settings(tmp_path: Path, **changes: object) -> TrainingSettings:
    values = {"input": [str(tmp_path / "rows.csv")], "output": str(tmp_path / "out"), "model": "base", **changes}
    return TrainingSettings(**values)


def test_rows_are_read_with_their_classes_and_prompts(tmp_path: Path) -> None:
    rows = labelled_rows(30, prompts=10)
    read = read_labelled([str(write_rows(tmp_path / "rows.csv", rows))])
    assert read.ids == [str(row[0]) for row in rows]
    assert read.labels.tolist() == [row[4:].index(1) for row in rows]
    assert len(np.unique(read.groups)) == 10
    assert read.conversations["row"].to_pylist() == list(range(30))
    assert read.conversations["response_b"].to_pylist() == [row[3] for row in rows]


def test_rows_that_cannot_be_decoded_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = labelled_rows(10)
    rows[4][1] = '["never closed'
    read = read_labelled([str(write_rows(tmp_path / "rows.csv", rows))])
    assert read.rejected == 1
    assert len(read.labels) == 9


def relabel(*marks: object) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        rows[3][4:] = marks

    return change


def all_ties(rows: list[Row]) -> None:
    for row in rows:
        row[4:] = [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (relabel("", "", ""), r"row 4 \(id 3\).* are nothing, nothing, nothing; one of them must be 1"),
        (relabel(1, 1, 0), r"row 4 \(id 3\).* are 1, 1, 0; one of them must be 1"),
        (relabel(0, 0, 0), r"row 4 \(id 3\).* are 0, 0, 0; one of them must be 1"),
        (relabel(0.4, 0.6, 0), r"row 4 \(id 3\).* are 0.4, 0.6, 0; one of them must be 1"),
        (relabel("nan", 1, 0), r"row 4 \(id 3\).* are nan, 1, 0; one of them must be 1"),
        (all_ties, "all 20 labels are tie"),
        (list.clear, "no row can be used"),
    ],
)
def test_labels_that_teach_nothing_are_one_sentence(
    tmp_path: Path, change: Callable[[list[Row]], None], told: str
) -> None:
    rows = labelled_rows(20)
    change(rows)
    file = str(write_rows(tmp_path / "rows.csv", rows))
    with pytest.raises(RunError, match=told):
        read_labelled([file])


def test_a_file_without_labels_is_a_usage_error(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", [row[:4] for row in labelled_rows(5)], COLUMNS[:4])
    with pytest.raises(UsageError, match="has no column winner_model_a, winner_model_b, winner_tie"):
        read_labelled([str(file)])


def test_no_prompt_is_on_both_sides(tmp_path: Path) -> None:
    rows = read_labelled([str(write_rows(tmp_path / "rows.csv", labelled_rows(120, prompts=30)))])
    split = split_rows(rows, settings(tmp_path, fold=2, folds=4))
    assert sorted([*split.training, *split.held_out]) == list(range(120))
    assert 0 < len(split.held_out) < 60
    assert not set(rows.groups[split.training]) & set(rows.groups[split.held_out])


def test_fold_minus_one_learns_from_all_rows(tmp_path: Path) -> None:
    rows = read_labelled([str(write_rows(tmp_path / "rows.csv", labelled_rows(20)))])
    split = split_rows(rows, settings(tmp_path, fold=-1))
    assert split.training.tolist() == list(range(20))
    assert len(split.held_out) == 0


def test_a_fold_that_is_not_there_and_too_few_rows_for_the_folds_are_told(tmp_path: Path) -> None:
    few = read_labelled([str(write_rows(tmp_path / "few.csv", labelled_rows(12, prompts=4)))])
    with pytest.raises(RunError, match="4 distinct prompts for 5 folds"):
        split_rows(few, settings(tmp_path))
    enough = read_labelled([str(write_rows(tmp_path / "enough.csv", labelled_rows(60)))])
    with pytest.raises(UsageError, match="--fold: 5 is not one of the 5 folds; give -1 to 4"):
        split_rows(enough, settings(tmp_path, fold=5))


def test_an_output_that_is_there_and_a_training_with_other_settings_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", labelled_rows(12))
    claim(settings(tmp_path))
    claim(settings(tmp_path))
    with pytest.raises(UsageError, match=r"holds a training with rank = 16 where\s8 is asked now"):
        claim(settings(tmp_path, rank=8))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out exists; name a new directory"):
        claim(settings(tmp_path))


def test_a_training_does_not_go_on_with_labels_that_were_changed_in_place(tmp_path: Path) -> None:
    """Same name, same size, same date."""
    rows = labelled_rows(12)
    file = write_rows(tmp_path / "rows.csv", rows)
    before = file.stat()
    claim(settings(tmp_path))
    rows[3][4:] = [*rows[3][5:], rows[3][4]]
    write_rows(file, rows)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with pytest.raises(UsageError, match=r"--input: .*rows\.csv has changed since .*out\.partial began"):
        claim(settings(tmp_path))
    write_rows(file, labelled_rows(12))
    claim(settings(tmp_path))


def test_a_training_does_not_go_on_with_another_base_under_the_same_name(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", labelled_rows(12))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"old weights")
    asked = settings(tmp_path, model=str(tmp_path / "base"))
    claim(asked)
    claim(asked)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"new weights")
    with pytest.raises(UsageError, match="holds a training with content of the model = "):
        claim(asked)


def test_a_training_goes_on_with_neither_more_nor_fewer_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_rows(tmp_path / name, labelled_rows(6))
    asked = settings(tmp_path, input=[str(tmp_path / "*.csv")])
    claim(asked)
    write_rows(tmp_path / "c.csv", labelled_rows(6))
    with pytest.raises(UsageError, match=r"c\.csv was added since"):
        claim(asked)
    for name in ("a.csv", "c.csv"):
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=r"a\.csv was left out since"):
        claim(asked)


def test_a_training_of_an_earlier_version_is_refused_and_says_why(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", labelled_rows(12))
    record = claim(settings(tmp_path)) / "settings.json"
    earlier = {key: value for key, value in json.loads(record.read_text()).items() if key != NOTED}
    record.write_text(json.dumps({**earlier, "bytes of the input": [1]}))
    with pytest.raises(UsageError, match="did not record the content of its input"):
        claim(settings(tmp_path))


def test_folds_can_be_the_values_of_a_column_and_never_share_a_prompt(tmp_path: Path) -> None:
    rows = [[*row, "web" if number % 3 else "app"] for number, row in enumerate(labelled_rows(30, prompts=20))]
    path = write_rows(tmp_path / "rows.csv", rows, [*COLUMNS, "source"])
    read = read_labelled([str(path)], fold_column="source")
    split = split_rows(read, settings(tmp_path, fold=0, fold_column="source"))
    assert sorted(split.held_out.tolist()) == list(range(0, 30, 3))
    assert not set(read.groups[split.training]) & set(read.groups[split.held_out])
    with pytest.raises(UsageError, match="--fold: 2 is not one of the 2 folds"):
        split_rows(read, settings(tmp_path, fold=2, fold_column="source"))
