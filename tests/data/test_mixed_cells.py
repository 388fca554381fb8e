"""Plain text among lists is taken as text, with a warning, however the file comes in."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.conversations import CellForm
from lmsys_ray.data.readers import BEGINNING, ReadPosition, read_rows
from lmsys_ray.data.readers.mixed_cells import Sample
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage.packaged import locate

NAMES = ("id", "prompt", "response_a", "response_b")


def lists(rows: int, changed: Mapping[int, Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns records whose cells are lists; those of some rows, by their numbers from 1, are `changed`."""
    return [
        {"id": f"i{n}", "prompt": f'["prompt {n}"]', "response_a": f' ["a", "{n}"]', "response_b": "[null]"}
        | changed.get(n, {})
        for n in range(1, rows + 1)
    ]


def write_csv(path: Path, records: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, NAMES)
        writer.writeheader()
        writer.writerows(records)
    return path


def write_json_lines(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_parquet(path: Path, records: list[dict[str, str]]) -> Path:
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=40)
    return path


def warned(path: Path, form: CellForm = "auto", start: ReadPosition = BEGINNING) -> dict[int, str]:
    rows = [row for table in read_rows(str(path), form, start=start) for row in table.to_pylist()]
    return {row["number"]: row["warning"] for row in rows if row["warning"]}


def sentence(what: str) -> str:
    return (
        f"{what} taken as plain text, while most cells of the file are lists of turns; "
        "--set cells=json rejects such cells, --set cells=text takes every cell as text"
    )


CHANGED = {
    7: {"response_a": "hello"},
    30: {"prompt": '["a","b"].forEach(f)', "response_b": ""},
    31: {"prompt": "['printed', \"it's\"]", "response_a": '["two\nlines"]', "response_b": '["a", 1]'},
    32: {"prompt": '[{"role": "user", "content": "message"}]'},
    33: {"prompt": "plain", "response_a": '["open'},
    99: {"prompt": "x", "response_a": "[Verse 1]", "response_b": "\xa0y"},
}
EXPECTED = {
    7: sentence("response_a is"),
    30: sentence("prompt and response_b are"),
    99: sentence("prompt, response_a and response_b are"),
}


@pytest.mark.parametrize(
    ("name", "write"), [("a.csv", write_csv), ("a.jsonl", write_json_lines), ("a.parquet", write_parquet)]
)
def test_text_among_lists_is_a_warning_of_its_row(
    tmp_path: Path, name: str, write: Callable[[Path, list[dict[str, str]]], Path]
) -> None:
    path = write(tmp_path / name, lists(120, CHANGED))
    assert warned(path) == EXPECTED
    assert warned(path, "json") == warned(path, "text") == {}


def test_it_is_counted_and_named_in_the_summary(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", lists(120, CHANGED))
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    batches = ((str(path), table) for table in read_rows(str(path)))
    counts = ingest(batches, run, 16, fail_on_reject=False, on_rows=lambda rows: None)
    assert counts.warnings == 3
    assert counts.warned[0] == f"{path}, row 7 (id i7): {EXPECTED[7]}"
    assert counts.rejects == 1


@pytest.mark.parametrize("share", [0, 0.5, 0.87])
def test_files_with_more_text_have_no_warning(tmp_path: Path, share: float) -> None:
    text = dict.fromkeys(NAMES[1:], "plain")
    changed = {n: text for n in range(1, 201) if n % 100 >= 100 * share}
    assert warned(write_csv(tmp_path / "a.csv", lists(200, changed))) == {}


def test_the_packaged_sample_has_no_warning() -> None:
    assert warned(Path(locate("packaged:sample.csv"))) == {}


def test_the_first_thousand_rows_decide(tmp_path: Path) -> None:
    text = dict.fromkeys(NAMES[1:], "plain")
    late = write_csv(tmp_path / "late.csv", lists(1500, dict.fromkeys(range(901, 1501), text)))
    assert list(warned(late)) == list(range(901, 1501))
    early = write_csv(tmp_path / "early.csv", lists(5000, dict.fromkeys(range(1, 102), text)))
    assert warned(early) == {}


def test_of_large_rows_fewer_decide() -> None:
    cells = pa.array(["x" * (1 << 20)] * 50, pa.large_string())
    plain = pa.array([0] * 2 + [7] * 48, pa.uint8())
    table = pa.table({**dict.fromkeys(NAMES[1:], cells), "reason": pa.nulls(50, pa.string()), "plain": plain})
    tables = iter([table.slice(0, 1), table.slice(1), table])
    assert Sample.of(tables).mostly_lists
    assert next(tables) is table


def test_how_the_file_is_read_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = dict.fromkeys(NAMES[1:], "plain")
    files = {
        "few.csv": lists(1300, {n: text for n in range(1, 1301) if n % 11 == 5}),
        "many.csv": lists(1300, {n: text for n in range(1, 1301) if n % 9 == 5}),
        "late.csv": lists(1300, dict.fromkeys(range(990, 1301), text)),
    }
    expected = {}
    for name, records in files.items():
        expected[name] = warned(write_csv(tmp_path / name, records))
    assert [len(rows) for rows in expected.values()] == [118, 0, 311]
    for module in ("csv_blocks", "windows"):
        monkeypatch.setattr(f"lmsys_ray.data.readers.{module}.BLOCK", 5000)
    for name, whole in expected.items():
        assert warned(tmp_path / name) == whole
        tables = list(read_rows(str(tmp_path / name)))
        assert len(tables) > 10
        for table in tables[::4]:
            last = table.slice(table.num_rows - 1).to_pylist()[0]
            start = ReadPosition(last["start_at"], last["start_row"])
            assert warned(tmp_path / name, start=start) == {n: w for n, w in whole.items() if n >= start.row}
