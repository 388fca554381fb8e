"""Labels are read from each format; what is no label is named with its place."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.labels import COLUMNS, read_labels
from lmsys_ray.errors import RunError, UsageError

HEADER = "id,winner_model_a,winner_model_b,winner_tie"


def write(tmp_path: Path, text: str, name: str = "labels.csv") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_columns_may_stand_anywhere_among_others(tmp_path: Path) -> None:
    text = 'winner_tie,prompt,id,winner_model_b,source,winner_model_a\n0,"two\nlines",x,1,web,0\n1,p,y,0,,0\n'
    labels = read_labels(write(tmp_path, text))
    assert labels.ids.to_pylist() == ["x", "y"]
    assert labels.classes.tolist() == [1, 2]
    assert labels.sources == ["web", None]


@pytest.mark.parametrize("values", [("1", "0", "0"), ("1.0", "0.0", "0.0"), ("True", "False", "False")])
def test_ways_to_write_a_one(tmp_path: Path, values: tuple[str, ...]) -> None:
    labels = read_labels(write(tmp_path, f"{HEADER}\nx,{','.join(values)}\n"))
    assert labels.classes.tolist() == [0]
    assert labels.sources is None


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv.gz"])
def test_other_formats_read_the_same(tmp_path: Path, kind: str) -> None:
    rows = [
        {"id": 7, **dict(zip(COLUMNS, (0, 1, 0), strict=True))},
        {"id": 8, **dict(zip(COLUMNS, (0, 0, 1), strict=True))},
    ]
    path = tmp_path / f"labels.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(f"{HEADER}\n7,0,1,0\n8,0,0,1\n".encode()))
    labels = read_labels(str(path))
    assert (labels.ids.to_pylist(), labels.classes.tolist()) == (["7", "8"], [1, 2])


@pytest.mark.parametrize("values", ["1,1,0", "0,0,0", "0.5,0.5,0", ",,", "x,0,1", "nan,0,1", "2,-1,0"])
def test_labels_that_are_not_one_hot_are_named(tmp_path: Path, values: str) -> None:
    path = write(tmp_path, f"{HEADER}\nfine,1,0,0\nbad,{values}\n")
    with pytest.raises(RunError, match=r"labels\.csv, row 2 \(id bad\): .* one of them must be 1 and the others 0"):
        read_labels(path)


def test_an_id_that_stands_twice_is_named_with_both_rows(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEADER}\nx,1,0,0\ny,1,0,0\nx,0,1,0\n")
    with pytest.raises(RunError, match="id x is in rows 1 and 3"):
        read_labels(path)


def test_damaged_rows_and_rows_without_id_are_counted(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, f'{HEADER}\nx,1,0,0\n"open,1,0,0\n,0,1,0\nshort,1\ny,0,0,1\n'))
    assert labels.ids.to_pylist() == ["x", "y"]
    assert labels.unreadable == 3


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "id,prompt,winner_model_a\nx,p,1\n")
    with pytest.raises(UsageError, match=r"has no column winner_model_b, winner_tie; it has id, prompt"):
        read_labels(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--labels: .*nowhere\.csv is not a file"):
        read_labels(str(tmp_path / "nowhere.csv"))


@pytest.mark.parametrize("text", ["", f"{HEADER}\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RunError, match="labels"):
        read_labels(write(tmp_path, text))


def test_files_cut_short_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(f"{HEADER}\nx,1,0,0\n".encode() * 200)
    (tmp_path / "labels.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 and then nothing")
    for name in ("labels.csv.gz", "labels.parquet"):
        with pytest.raises(RunError, match="is damaged"):
            read_labels(str(tmp_path / name))


def test_a_column_with_the_winner_stands_for_the_three(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("winner,id\nmodel_b,7\nTie (bothbad),8\nmodel_a,9\n")
    assert read_labels(str(path)).classes.tolist() == [1, 2, 0]
    path.write_text("winner,id\nmodel_c,7\n")
    with pytest.raises(RunError, match=r"labels.csv, row 1 \(id 7\): winner is 'model_c'; accepted: model_a, a"):
        read_labels(str(path))
