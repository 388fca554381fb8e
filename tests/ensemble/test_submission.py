"""The submission: the ids in order, probabilities that a grader accepts, whole or not there."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.ensemble.consumers import replaced_together
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.ensemble.submission import HEADER, Submission, verify_submission
from lmsys_ray.errors import RunError


def column(ids: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(ids, pa.string())])


def write_submission(
    path: Path,
    shards: list[tuple[pa.ChunkedArray, np.ndarray]],
    ids: Iterator[pa.ChunkedArray],
    lines: int,
    escape_formulas: bool = False,
) -> None:
    with replaced_together() as files:
        submission = Submission(files, path, ids, lines, escape_formulas)
        for names, probabilities in shards:
            table, accepted = pa.table({"id": names}), np.ones(len(names), bool)
            submission.add(JoinedShard(0, table, accepted, {}, {}, {}, probabilities))
        submission.finish()


IDS = [str(2**63 - 1), "007", 'with "quotes", commas', "é", "-5"]
PROBABILITIES = np.random.default_rng(0).dirichlet([1, 1, 1], len(IDS))


def test_ids_and_probabilities_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    shards = [(column(IDS[:2]), PROBABILITIES[:2]), (column(IDS[2:]), PROBABILITIES[2:])]
    write_submission(path, shards, iter([column(IDS[:4]), column(IDS[4:])]), len(IDS))
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == HEADER
    assert [line[0] for line in lines] == IDS
    np.testing.assert_array_equal([[float(v) for v in line[1:]] for line in lines], PROBABILITIES)
    assert list(tmp_path.iterdir()) == [path]


def test_ids_that_spreadsheets_take_for_formulas_are_escaped_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    ids = ["=1+1", "+2", "-3", "@a", "'=1+1", "''-3", '=a,"b"', "\t=1", "1-2", "'a", "é", "'"]
    values = np.random.default_rng(0).dirichlet([1, 1, 1], len(ids))
    for escape, expected in (
        (False, ids),
        (True, ["'" + name if place < 8 else name for place, name in enumerate(ids)]),
    ):
        write_submission(path, [(column(ids), values)], iter([column(ids)]), len(ids), escape_formulas=escape)
        with path.open(encoding="utf-8", newline="") as file:
            assert [line[0] for line in csv.reader(file)][1:] == expected
    with pytest.raises(RunError, match="id '=1"):
        verify_submission(path, iter([column(ids)]))


@pytest.mark.parametrize(
    ("ids", "count"), [(IDS[:-1], 4), ([*IDS, "6"], 6), ([*IDS[1:], IDS[0]], 5), ([*IDS[:-1], "5"], 5), (IDS, 6)]
)
def test_wrong_ids_leave_the_old_submission_in_place(tmp_path: Path, ids: list[str], count: int) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("old")
    with pytest.raises(RunError):
        write_submission(path, [(column(IDS), PROBABILITIES)], iter([column(ids)]), count)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.5], [1.2, -0.1, -0.1], [np.nan, 0.5, 0.5], [0.3, 0.3, 0.39999]])
def test_values_that_a_grader_refuses_are_refused(tmp_path: Path, row: list[float]) -> None:
    with pytest.raises(RunError, match="are not probabilities"):
        write_submission(tmp_path / "s.csv", [(column(["1"]), np.array([row]))], iter([column(["1"])]), 1)


@pytest.mark.parametrize(
    "damage", [lambda text: text.replace("winner_tie", "tie"), lambda text: text[: len(text) // 2], lambda text: ""]
)
def test_damaged_file_is_refused(tmp_path: Path, damage: Callable[[str], str]) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [(column(IDS), PROBABILITIES)], iter([column(IDS)]), len(IDS))
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError):
        verify_submission(path, iter([column(IDS)]))
