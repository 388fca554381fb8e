"""A run goes on where its input grew: further files behind those of before, or rows at the end of the last one."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job, write_rows
from tests.scoring.test_extension import dated, limited, outputs
from tests.scoring.test_run_identity import files

HEADER = "id,prompt,response_a,response_b\n"


def csv_rows(first: int, end: int) -> str:
    return "".join(f"id{n},prompt {n},a {n},b {n % 7}\n" for n in range(first, end))


def json_rows(first: int, end: int) -> str:
    records = [
        {"id": f"id{n}", "prompt": f"p {n}", "response_a": "a", "response_b": f"b {n}"} for n in range(first, end)
    ]
    return "".join(json.dumps(record) + "\n" for record in records)


def fresh(settings: Settings, folder: Path) -> dict[str, bytes]:
    """What a run makes of the input as it is now."""
    run_job(settings.model_copy(update={"output": str(folder / "fresh" / "run")}))
    made = outputs(folder / "fresh")
    shutil.rmtree(folder / "fresh")
    return made


def test_further_files_in_a_folder(tmp_path: Path, capsys: Any) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "1.csv", 12, prefix="a")
    settings = make_settings(tmp_path, input=str(data))
    run_job(settings)
    before = dated(tmp_path)
    write_rows(data / "2.csv", 9, prefix="b")
    (data / "3.jsonl").write_text(json_rows(0, 3))
    with (data / "3.jsonl").open("a") as file:
        file.write('{"id": "a5", "prompt": "again", "response_a": "a", "response_b": "b"}\n')
    report = run_job(settings)
    assert (
        f"{tmp_path / 'run'} held all 12 rows; its input has 2 further files; going on to all\n"
        in capsys.readouterr().out
    )
    assert report.scored["judge"] == 8 + 3
    assert dated(tmp_path).items() >= before.items()
    assert outputs(tmp_path) == fresh(settings, tmp_path)
    (data / "0.csv").write_text(HEADER + csv_rows(0, 3))
    with pytest.raises(UsageError, match=r"was made with input = .*extended by files that come after those of before"):
        run_job(settings)


@pytest.mark.parametrize("first", ["1.csv", "language=de/1.csv"])
def test_further_folders_that_are_named_after_values(tmp_path: Path, first: str) -> None:
    data = tmp_path / "data"
    (data / "language=de").mkdir(parents=True)
    (data / "language=en").mkdir()
    write_rows(data / first, 12, prefix="a")
    settings = make_settings(tmp_path, input=str(data))
    run_job(settings)
    before = dated(tmp_path)
    write_rows(data / "language=en" / "2.csv", 9, prefix="b")
    assert run_job(settings).scored["judge"] == 8
    assert dated(tmp_path).items() >= before.items()
    assert outputs(tmp_path) == fresh(settings, tmp_path)
    (data / "language=en").rename(data / "language=fr")
    with pytest.raises(UsageError, match=r"was made with partitions = "):
        run_job(settings)


@pytest.mark.parametrize(
    ("name", "before", "added"),
    [
        ("in.csv", HEADER + csv_rows(0, 20), csv_rows(20, 33)),
        ("in.csv", HEADER + csv_rows(0, 20).rstrip("\n"), "\n" + csv_rows(20, 33)),
        ("in.csv", "\ufeff" + (HEADER + csv_rows(0, 20)).replace("\n", "\r\n").rstrip(), "\r\n" + csv_rows(20, 33)),
        ("in.csv", HEADER + csv_rows(0, 20) + 'id20,"two\nlines",a,b\n', csv_rows(21, 33)),
        ("in.csv", HEADER + csv_rows(0, 9) + 'id9,"text"behind,a,b\n' + csv_rows(10, 20), csv_rows(20, 33)),
        ("in.jsonl", json_rows(0, 20), json_rows(20, 33)),
        ("in.json", json_rows(0, 20).rstrip("\n"), "\n" + json_rows(20, 33)),
    ],
)
@pytest.mark.parametrize("limit", [None, 13])
def test_rows_at_the_end_of_a_file(tmp_path: Path, name: str, before: str, added: str, limit: int | None) -> None:
    path = tmp_path / name
    path.write_text(before, encoding="utf-8", newline="")
    settings = make_settings(tmp_path, input=str(path))
    begun = run_job(limited(settings, limit))
    kept = dated(tmp_path)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(added)
    report = run_job(settings)
    assert report.ingested.rows == 33
    assert begun.scored["judge"] + report.scored["judge"] == report.ingested.lines - report.ingested.unscored
    assert dated(tmp_path).items() >= kept.items()
    assert outputs(tmp_path) == fresh(settings, tmp_path)


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (HEADER + csv_rows(0, 20), HEADER + csv_rows(1, 33), "does not begin with the"),
        (
            HEADER + csv_rows(0, 20).rstrip("\n"),
            HEADER + csv_rows(0, 20).rstrip("\n") + csv_rows(20, 33),
            "goes on within the line",
        ),
        (
            HEADER + csv_rows(0, 19) + 'id19,"open,a,b\n',
            HEADER + csv_rows(0, 19) + 'id19,"open,a,b\n","a","b"\n' + csv_rows(20, 33),
            "its row 20 reads otherwise",
        ),
    ],
)
def test_a_file_that_changed_before_its_end_is_refused(tmp_path: Path, before: str, now: str, sentence: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(before)
    settings = make_settings(tmp_path)
    run_job(settings)
    made = files(tmp_path)
    path.write_text(now)
    with pytest.raises(UsageError, match=sentence) as refused:
        run_job(settings)
    assert "add rows in a file of their own, or choose another --output" in str(refused.value)
    assert files(tmp_path) == made
    path.write_text(before)
    run_job(settings)
    assert files(tmp_path) == made


def _parquet(path: Path, end: int) -> None:
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in json_rows(0, end).splitlines()]), path)


def _array(path: Path, end: int) -> None:
    path.write_text("[" + json_rows(0, end).rstrip().replace("\n", ",") + "]")


def _packed(path: Path, end: int) -> None:
    path.write_bytes(gzip.compress((HEADER + csv_rows(0, end)).encode()))


@pytest.mark.parametrize(("name", "write"), [("in.parquet", _parquet), ("in.json", _array), ("in.csv.gz", _packed)])
def test_files_of_other_formats_are_refused_and_others_may_follow(
    tmp_path: Path, name: str, write: Callable[[Path, int], None]
) -> None:
    path = tmp_path / name
    write(path, 20)
    settings = make_settings(tmp_path, input=str(path))
    run_job(settings)
    kept = path.read_bytes()
    write(path, 40)
    with pytest.raises(
        UsageError, match="only a local file of CSV or JSON Lines that is not compressed may have further rows"
    ):
        run_job(settings)
    path.write_bytes(kept)
    write(tmp_path / f"more-{name}", 30)
    settings = settings.model_copy(update={"input": [str(path), str(tmp_path / f"more-{name}")]})
    assert run_job(settings).scored["judge"] == 10
    assert outputs(tmp_path) == fresh(settings, tmp_path)


def test_ids_made_of_names_of_files_stay(tmp_path: Path) -> None:
    """A second file of the same name would give the first one another name in ids."""
    texts = "".join(json.dumps({"prompt": f"p {n}", "chosen": "c", "rejected": "r"}) + "\n" for n in range(9))
    paths = [tmp_path / day / "in.jsonl" for day in ("monday", "tuesday")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(texts)
    settings = make_settings(tmp_path, input=str(paths[0]))
    run_job(settings)
    before = outputs(tmp_path)["submission.csv"]
    further = settings.model_copy(update={"input": [str(path) for path in paths]})
    run_job(further)
    made = outputs(tmp_path)["submission.csv"]
    assert made.startswith(before)
    assert made.count(b"tuesday/in.jsonl:") == 9
    (tmp_path / "run" / "manifest.json").unlink()
    assert run_job(further).scored == {}
    assert outputs(tmp_path)["submission.csv"] == made


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """The start ends with a sentence, and the next one goes on with what is there then."""
    path = tmp_path / "in.csv"
    path.write_text(HEADER + csv_rows(0, 20))
    settings = make_settings(tmp_path)
    run_job(settings)
    kept = dated(tmp_path)
    ends = iter([(20, 30), (30, 40), (40, 50)])

    def grow(place: str = "read") -> None:
        if place == "read" and (more := next(ends, None)):
            with path.open("a") as file:
                file.write(csv_rows(*more))

    grow()
    with pytest.raises(RunError, match=r"in\.csv (was replaced after|changed while it was read)"):
        run_job(settings, grow)
    assert run_job(settings).ingested.rows == 40
    assert dated(tmp_path).items() >= kept.items()
    grow()
    assert run_job(settings).ingested.rows == 50
    assert dated(tmp_path).items() >= kept.items()
    assert outputs(tmp_path) == fresh(settings, tmp_path)


def test_bad_rows_that_were_added_may_be_mended(tmp_path: Path, capsys: Any) -> None:
    """As long as nothing was scored of the extension; so a run that was extended by mistake can also go back."""
    path = tmp_path / "in.csv"
    path.write_text(HEADER + csv_rows(0, 20))
    settings = make_settings(tmp_path, on_bad_row="fail")
    run_job(settings)
    made, kept, good = files(tmp_path), dated(tmp_path), path.read_text()
    path.write_text(good + csv_rows(20, 40) + "bad,row\n")
    for _ in range(2):
        with pytest.raises(RunError, match=r"row 41 \(id None\): has 2 cells"):
            run_job(settings)
    path.write_text(good)
    capsys.readouterr()
    assert run_job(settings).scored == {}
    assert "nothing was scored of what it was last extended to, which is given up\n" in capsys.readouterr().out
    assert files(tmp_path) == made
    path.write_text(good + csv_rows(20, 40) + "bad,row\n")
    with pytest.raises(RunError, match=r"row 41 \(id None\): has 2 cells"):
        run_job(settings)
    path.write_text(good + csv_rows(20, 43))
    assert run_job(settings).scored["judge"] == 23
    assert dated(tmp_path).items() >= kept.items()
    assert outputs(tmp_path) == fresh(settings, tmp_path)
    path.write_text(good)
    with pytest.raises(UsageError, match="was made with input"):
        run_job(settings)
