"""Ids that pandas wrote as floats meet the whole numbers of the run, or are refused with the cause; never by chance."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.labels import COLUMNS, read_labels
from lmsys_ray.errors import RunError
from lmsys_ray.evaluation.ids import LabelIds, whole_numbers
from lmsys_ray.evaluation.labelled_scores import LabelledScores, join
from lmsys_ray.run_directory.tables import read_table, write_table
from tests.evaluation.runs import drawn, make_run, write_labels

ROWS = 20


def joined(tmp_path: Path, run_ids: list[str], label_ids: list[str]) -> LabelledScores:
    truth, labels = drawn(ROWS)
    labels[:3] = [0, 1, 2]
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(ROWS)], {"m": truth}, {"m": 1.0})
    shard = read_table(run.shard(0))
    place = shard.schema.get_field_index("id")
    write_table(shard.set_column(place, shard.schema.field("id"), pa.array(run_ids)), run.shard(0))
    write_labels(tmp_path / "labels.csv", labels, label_ids)
    return join(run, settings, read_labels(str(tmp_path / "labels.csv")))


def test_floats_are_taken_as_the_whole_numbers_of_the_run_and_counted(tmp_path: Path) -> None:
    numbers = list(range(100, 100 + ROWS))
    found = joined(tmp_path, [str(n) for n in numbers], [f"{n}.0" for n in numbers])
    assert found.counts.judged == found.counts.ids_as_floats == ROWS
    np.testing.assert_allclose(found.members["m"], drawn(ROWS)[0], atol=1e-6)


def test_a_run_with_floats_itself_is_met_as_it_stands(tmp_path: Path) -> None:
    floats = [f"{n}.0" for n in range(ROWS)]
    counts = joined(tmp_path, floats, floats).counts
    assert (counts.judged, counts.ids_as_floats) == (ROWS, 0)


def test_a_run_with_both_forms_is_refused(tmp_path: Path) -> None:
    mixed = ["0.0", *(str(n) for n in range(1, ROWS))]
    with pytest.raises(RunError, match=r"such as 0\.0, and .* has 1 in this form and 19 as whole numbers"):
        joined(tmp_path, mixed, [f"{n}.0" for n in range(ROWS)])


@pytest.mark.parametrize("first", ["9007199254740993.0", "1.2345678901234568e+18"])
def test_floats_that_may_have_lost_digits_are_refused_with_the_cause(tmp_path: Path, first: str) -> None:
    floats = [first, *(f"{n}.0" for n in range(1, ROWS))]
    with pytest.raises(RunError, match="is a whole number written as a float, as pandas does where a column has gaps"):
        joined(tmp_path, [str(n) for n in range(ROWS)], floats)


def test_no_common_id_shows_one_of_each_side(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\(they have x0, the run has y0\); give the labels of the rows"):
        joined(tmp_path, [f"y{n}" for n in range(ROWS)], [f"x{n}" for n in range(ROWS)])


def test_ids_of_other_forms_stay_as_they_are() -> None:
    for ids in (["1.0", "x"], ["1.5"], ["1"], [".0"], ["1e5"]):
        assert whole_numbers(pa.array(ids)) is None
    assert whole_numbers(pa.array(["7.0", "-3.0"])).to_pylist() == ["7", "-3"]  # type: ignore[union-attr]
    ids = LabelIds(pa.array(["7.0", "8.0"]))
    assert ids.places(pa.chunked_array([["8", "7.5", "7"]])).to_pylist() == [1, None, 0]


def test_a_gap_in_a_column_of_floats_is_a_row_without_an_id(tmp_path: Path) -> None:
    marks = dict(zip(COLUMNS, ([1, 0, 0], [0, 1, 0], [0, 0, 1]), strict=True))
    table = pa.table({"id": pa.array([5.0, float("nan"), 6.0]), **marks})
    pq.write_table(table, tmp_path / "labels.parquet")
    labels = read_labels(str(tmp_path / "labels.parquet"))
    assert labels.ids.to_pylist() == ["5.0", "6.0"]
    assert labels.unreadable == 1
