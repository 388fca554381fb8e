"""Files to rows: every row comes out once, usable or with a reason, whatever the format."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsys_ray.data.readers import check_columns, expand_inputs, read_rows
from lmsys_ray.errors import RunError, UsageError

HEADER = b"id,prompt,response_a,response_b\n"
RECORDS = [
    {"id": "1", "prompt": '["Why, \\"so\\"?"]', "response_a": "two\nlines", "response_b": "a,b"},
    {"id": "007", "prompt": "é 😀", "response_a": "", "response_b": "[null]"},
    {"id": str(2**63), "prompt": "x" * 3_000_000, "response_a": "null", "response_b": "12"},
]


def rows(path: Path, **options: object) -> list[dict]:
    return [row for table in read_rows(str(path), **options) for row in table.to_pylist()]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def csv_bytes(records: list[dict], line_end: str = "\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator=line_end)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def files_of_every_format(folder: Path, records: list[dict]) -> list[Path]:
    plain, windows = csv_bytes(records), b"\xef\xbb\xbf" + csv_bytes(records, "\r\n")
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    pq.write_table(pa.Table.from_pylist(records), folder / "e.parquet")
    return [
        written(folder / "a.csv", plain),
        written(folder / "b.csv", windows),
        written(folder / "c.csv.gz", gzip.compress(plain)),
        written(folder / "d.jsonl", lines),
        folder / "e.parquet",
        written(folder / "f.jsonl.gz", gzip.compress(lines)),
    ]


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    for path in files_of_every_format(tmp_path, RECORDS):
        found = rows(path)
        assert [row["number"] for row in found] == [1, 2, 3]
        assert [{key: row[key] for key in RECORDS[0]} for row in found] == RECORDS, path
        assert all(row["reason"] is None for row in found)


def test_whole_numbers_and_lists_become_the_text_of_a_csv(tmp_path: Path) -> None:
    records = [{"id": 2**62 + 1, "prompt": ["é", None], "response_a": ["a"], "response_b": []}]
    written(tmp_path / "a.jsonl", json.dumps(records[0]).encode())
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        row = rows(tmp_path / name)[0]
        assert (row["id"], row["prompt"], row["response_a"]) == (str(2**62 + 1), '["\\u00e9",null]', '["a"]')


BAD_LINES = {
    b'1,"[""a"",b,c\n': "text follows a closing quote",
    b'1,"a"x,b,c\n': "text follows a closing quote",
    b'1,"never closed,b,c\n': None,
    b"1,a,b\n": "has 3 cells where the header names 4",
    b"1,a,b,c,d\n": "has 5 cells where the header names 4",
    b"1,\xff\xfe,b,c\n": "prompt is not valid UTF-8 (byte 0xff)",
    b'1,a,"[""b""",c\n': "response_a is not valid JSON",
    b'1,a,b,"[{""role"":1}"\n': None,
    b",a,b,c\n": "id is missing",
    b"  ,a,b,c\n": "id is missing",
    b"1,a\rb,b\n": "carriage return",
    b'"1\n2",a,b,c\n': "id holds a line break",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_line_costs_itself_alone(tmp_path: Path, line: bytes) -> None:
    good = b'2,"[""x""]",y,z\n'
    found = rows(written(tmp_path / "a.csv", HEADER + line + good * 2))
    assert [row["id"] for row in found[-2:]] == ["2", "2"]
    assert [row["reason"] for row in found[-2:]] == [None, None]
    if BAD_LINES[line]:
        assert BAD_LINES[line] in found[0]["reason"]
        assert len(found) == 3


def test_unclosed_quote_at_the_end_is_told(tmp_path: Path) -> None:
    found = rows(written(tmp_path / "a.csv", HEADER + b'1,a,b,c\n2,"open,b,c\n3,a,b,c\n'))
    assert [(row["id"], row["reason"]) for row in found] == [
        ("1", None),
        ("2", "a quote is opened and never closed"),
        ("3", None),
    ]


def test_id_of_a_damaged_row_is_kept_only_where_it_is_sure(tmp_path: Path) -> None:
    found = rows(written(tmp_path / "a.csv", HEADER + b"12,a,b\nsome words, more,x\n"))
    assert [row["id"] for row in found] == ["12", None]
    reordered = written(tmp_path / "b.csv", b"prompt,id,response_a,response_b\na 1,2,b\n")
    assert [row["id"] for row in rows(reordered)] == [None]


def test_nul_and_huge_cells_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", HEADER + b'1,a\x00b,"' + b"y" * 5_000_000 + b'",c\n')
    row = rows(path)[0]
    assert (row["prompt"], len(row["response_a"]), row["reason"]) == ("a\x00b", 5_000_000, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1,', "not valid JSON"),
        (b"[1]", "no object"),
        (b'{"id": 1.5, "prompt": "a", "response_a": "b", "response_b": "c"}', "id is missing or neither"),
        (b'{"id": true, "prompt": "a", "response_a": "b", "response_b": "c"}', "id is missing or neither"),
        (b'{"id": 1, "prompt": null, "response_a": "b", "response_b": "c"}', "prompt is missing"),
        (b'{"id": 1, "prompt": "a", "response_b": "c"}', "response_a is missing"),
        (b'{"id": 1, "prompt": {"x": 1}, "response_a": "b", "response_b": "c"}', "prompt is neither text"),
        (b'{"id": 1, "prompt": [["x"]], "response_a": "b", "response_b": "c"}', None),
        (b'{"id": 1, "prompt": "\xff"}', "not valid UTF-8"),
    ],
)
def test_bad_json_line_costs_itself_alone(tmp_path: Path, line: bytes, reason: str | None) -> None:
    good = b'{"id": 2, "prompt": "a", "response_a": "b", "response_b": "c"}\n'
    found = rows(written(tmp_path / "a.jsonl", good + line + b"\n\n" + good))
    assert len(found) == 3
    assert found[0]["reason"] is None
    assert found[2]["reason"] is None
    assert reason is None or reason in found[1]["reason"]


def test_parquet_value_that_is_no_utf8_costs_itself_alone(tmp_path: Path) -> None:
    text = pa.array([b"good", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    table = pa.table({"id": [1, 2], "prompt": text, "response_a": ["a", "a"], "response_b": ["b", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row["reason"] for row in rows(tmp_path / "a.parquet")] == [None, "prompt is not valid UTF-8 (byte 0xff)"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"id,prompt,answer_a,response_b\n", "has no column response_a; it has id, prompt, answer_a"),
        ("a.csv", b"id;prompt;response_a;response_b\n", "delimiter"),
        ("a.csv", b"PAR1....", "Parquet file by its content"),
        ("a.csv", gzip.compress(HEADER, mtime=0), "rename it to"),
        ("a.csv.gz", HEADER, "not compressed"),
        ("a.csv", "id,prompt".encode("utf-16"), "UTF-16"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b'{"id": 1}\n', "has no column prompt"),
        ("a.parquet", b"PAR1 cut short", "not a Parquet file"),
    ],
)
def test_unusable_file_is_a_usage_error(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_columns(str(written(tmp_path / name, content)))


def test_gzip_cut_short_stops_with_a_sentence(tmp_path: Path) -> None:
    whole = gzip.compress(HEADER + b"".join(b"%d,%d,b,c\n" % (i, i * i) for i in range(20_000)))
    path = written(tmp_path / "a.csv.gz", whole[: len(whole) // 2])
    with pytest.raises(RunError, match="truncated; fetch it again"):
        rows(path)


def test_header_alone_gives_no_rows(tmp_path: Path) -> None:
    assert rows(written(tmp_path / "a.csv", HEADER)) == []


def test_limit_and_extra_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", HEADER[:-1] + b",winner\n" + b"1,a,b,c,1\n2,a,b,c,\n3,a,b,c,0\n")
    assert [row["winner"] for row in rows(path, extra=["winner"], limit=2)] == ["1", ""]


def test_inputs_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        written(tmp_path / name, HEADER)
    assert [Path(p).name for p in expand_inputs([str(tmp_path / "*.csv")])] == ["a.csv", "b.csv"]
    for pattern, sentence in [
        ("*.tsv", "does not exist"),
        ("c.txt", "has an unknown ending"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            expand_inputs([str(tmp_path / pattern)])


def test_a_folder_is_the_files_in_it_that_can_be_read_without_hidden_ones(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown = ["a.csv", "language=en/b.jsonl", "x [1]/c.parquet"]
    hidden = ["_SUCCESS", "notes.txt", ".d.csv", "_temporary/e.csv", ".cache/f.csv", "run/shards/00000.parquet"]
    for name in [*shown, *hidden]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path / name, HEADER)
    assert expand_inputs([str(tmp_path)], str(run)) == [str(tmp_path / name) for name in shown]
    assert expand_inputs([f"{tmp_path}/x [1]/"], str(run)) == [str(tmp_path / shown[2])]
    with pytest.raises(UsageError, match="input: no file in"):
        expand_inputs([str(tmp_path / "run" / "shards")], str(run))


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8))
def test_any_csv_that_pythons_writer_makes_comes_back(tmp_path_factory: pytest.TempPathFactory, cells: list) -> None:
    records = [dict(zip(RECORDS[0], (f"id {i}", *row), strict=True)) for i, row in enumerate(cells)]
    # With this line end Python's writer quotes carriage returns, which else it leaves to break the record.
    path = written(tmp_path_factory.mktemp("csv") / "a.csv", csv_bytes(records, "\r\n"))
    found = rows(path, form="text")
    assert [{key: row[key] for key in records[0]} for row in found] == records


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_header_are_accounted_for(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    last = b'\n"\n9,a,b,c\n' if noise.count(b'"') % 2 else b"\n9,a,b,c\n"
    found = rows(written(tmp_path_factory.mktemp("csv") / "a.csv", HEADER + noise + last))
    assert found[-1]["id"] == "9"
    assert all(row["reason"] or (row["id"] and row["prompt"] is not None) for row in found)


def test_row_with_a_cell_beyond_the_limit_is_named_in_every_format(tmp_path: Path) -> None:
    records = [
        {"id": "1", "prompt": "é" * 1000, "response_a": "a", "response_b": "b"},
        {"id": "2", "prompt": "é" * 1000 + "x", "response_a": "a", "response_b": "b"},
        {"id": "3" * 2001, "prompt": "", "response_a": "a", "response_b": "b"},
    ]
    for path in files_of_every_format(tmp_path, records):
        found = [(row["id"], row["reason"]) for row in rows(path, largest_cell=2000)]
        assert found == [
            ("1", None),
            ("2", "prompt has more than largest_cell = 2000 bytes"),
            (None, "id has more than largest_cell = 2000 bytes"),
        ], path
