"""Folders that are named after values of columns."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.labelled_rows import read_labelled
from lmsys_ray.data.readers import check_columns, head, read_rows
from lmsys_ray.data.readers.partitions import partition_values
from lmsys_ray.data.schemas.recognise import ANYTHING, Wishes, recognise
from lmsys_ray.errors import UsageError
from lmsys_ray.scoring.fingerprint import check_same_run, digests, fingerprint
from lmsys_ray.scoring.settings import Settings

CONTEST = [{"id": str(n), "prompt": f'["p{n}"]', "response_a": '["a"]', "response_b": '["b"]'} for n in range(3)]
SIDES = {f"conversation_{s}": [{"role": "user", "content": "u"}, {"role": "assistant", "content": s}] for s in "ab"}
ARENA = [{"question_id": f"q{n}", **SIDES} for n in range(3)]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def rows_of(path: str, wishes: Wishes = ANYTHING) -> list[dict[str, Any]]:
    reading = recognise(head(path), wishes).reading
    check_columns(path, reading=reading)
    return [row for table in read_rows(path, reading=reading, name="f") for row in table.to_pylist()]


@pytest.mark.parametrize("name", ["part-0.csv", "part-0.jsonl", "part-0.json", "part-0.parquet"])
@pytest.mark.parametrize("records", [CONTEST, ARENA], ids=["contest", "arena"])
def test_rows_have_the_values_of_their_folders(tmp_path: Path, name: str, records: list[dict[str, Any]]) -> None:
    if records is ARENA and name.endswith(".csv"):
        records = [{key: json.dumps(value) if key in SIDES else value for key, value in row.items()} for row in ARENA]
    labels = {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0} if records is CONTEST else {}
    records = [{**record, **labels} for record in records]
    winner = "winner=model_b/" if not labels else ""
    folder = f"model_a=gpt%2D4/{winner}language=pt-BR/source=__HIVE_DEFAULT_PARTITION__/day=3"
    rows = rows_of(write(tmp_path / folder / name, records))
    assert [row["id"] for row in rows] == [str(row.get("id", row.get("question_id"))) for row in records]
    for row in rows:
        assert (row["reason"], row["warning"]) == (None, None)
        assert (row["language"], row["source"], row["model_a"], row["label"]) == ("pt-BR", None, "gpt-4", 1)
        assert "day" not in row


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_column_of_the_file_counts(tmp_path: Path, name: str) -> None:
    records = [{**record, "language": language} for record, language in zip(CONTEST, ("de", "", "fr"), strict=True)]
    rows = rows_of(write(tmp_path / "language=en" / name, records))
    assert [row["language"] for row in rows] == ["de", None, "fr"]


def test_a_key_may_stand_for_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "tongue=en" / "topic=art" / "a.parquet", CONTEST)
    rows = rows_of(path, Wishes(columns={"language": "tongue", "source": "topic"}))
    assert {(row["language"], row["source"]) for row in rows} == {("en", "art")}


def test_folds_and_labels_may_be_folders(tmp_path: Path) -> None:
    ones = ("winner_model_a=1/winner_model_b=0/winner_tie=0", "winner_model_a=0/winner_model_b=1/winner_tie=0")
    for fold, one in enumerate(ones):
        write(tmp_path / f"fold={fold}" / one / "a.csv", CONTEST)
    rows = read_labelled([str(tmp_path)], fold_column="fold")
    assert rows.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.fold_values == ["0", "0", "0", "1", "1", "1"]


@pytest.mark.parametrize("folder", ["a=1/b=x%20y%2F", "a=/b=1=2", "a=__HIVE_DEFAULT_PARTITION__/b=%zz", "a=1/a=2/b=é"])
def test_folders_are_read_as_pyarrow_reads_them(folder: str) -> None:
    layout = dataset.HivePartitioning(pa.schema([("a", pa.string()), ("b", pa.string())]))
    assert partition_values(f"x/{folder}/part=0.csv") == dataset.get_partition_keys(layout.parse(f"x/{folder}/"))


def test_other_names_are_no_values() -> None:
    assert partition_values("s3://bucket/=x/plain/a=b.csv") == {}
    assert partition_values("a=caf\udce9/x.csv") == {"a": "caf\ufffd"}


def test_a_renamed_folder_is_another_run(tmp_path: Path) -> None:
    write(tmp_path / "in" / "day=1" / "language=en" / "a.csv", CONTEST)

    def now() -> dict[str, Any]:
        members = {"trees": {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}}
        return fingerprint(Settings(input=[str(tmp_path / "in")], output=str(tmp_path / "run"), members=members))

    before = now()
    (tmp_path / "in" / "day=1").rename(tmp_path / "in" / "day=2")
    check_same_run(before, now(), tmp_path / "run")
    assert digests(now()) == digests(before), "no row has the day"
    (tmp_path / "in" / "day=2" / "language=en").rename(tmp_path / "in" / "day=2" / "language=de")
    with pytest.raises(UsageError, match=r'partitions = \[{"language": "en"}\], now it is \[{"language": "de"}\]'):
        check_same_run(before, now(), tmp_path / "run")
    assert digests(now()).ingest != digests(before).ingest
