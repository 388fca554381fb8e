"""Damaged CSV records, quotes that swallow rows, and cells beyond the limit: no row that nobody wrote, none unnamed."""

import csv
import gzip
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmsys_ray.data.readers import csv_blocks, csv_records, read_rows
from lmsys_ray.data.readers.csv_grammar import Record, record_at
from lmsys_ray.data.readers.row_shape import id_kind
from tests.data.bad_input.outcomes import Row, assert_accounted, ingested

HEADER = b"id,prompt,response_a,response_b\n"
AFTER = "text follows a closing quote"
OPEN = "a quote is opened and never closed"


def wide(cells: int) -> str:
    return f"has {cells} cells where the header names 4"


CODE = b"""7,"Why does this fail?
def f(x):
    print(x, "hello)
    return a, b, c, d
9,x,y
",resp a,resp b
"""
DAMAGED: dict[str, tuple[bytes, list[Row]]] = {
    "pieces that look like a row": (
        b'1,"line one\n9,x,y,z\nsay "hi" there",a,b\n9,real prompt,real a,real b\n',
        [Row("1", f"lines 2 to 4: {AFTER}"), Row("9")],
    ),
    "pieces that look like rows, before the quote": (
        b'1,"line one\n8,x,y,z\n9,x,y,z\n10,say "hi" there",a,b\n9,p,a,b\n',
        [Row("1", f"lines 2 to 5: {AFTER}"), Row("9")],
    ),
    "lines behind an undoubled quote": (
        b'1,"one "two" three\nfour, five",a,b\n2,p,a,b\n',
        [Row("1", f"lines 2 to 3: {AFTER}"), Row("2")],
    ),
    "code with one undoubled quote": (
        CODE.replace(b"9,x,y\n", b"") + b'8,"two\nlines",a,b\n9,p,a,b\n',
        [Row("7", f"lines 2 to 6: {AFTER}"), Row("8"), Row("9")],
    ),
    "code whose quote ends its line": (
        b'7,"x = "\n  y, z, u, v\n",a,b\n8,p,a,b\n',
        [Row("7", f"lines 2 to 4: {wide(2)}"), Row("8")],
    ),
    "damage in two records in turn": (
        b'7,"say "hi"\nthere",a,b\n8,"say "ho"\nthere",a,b\n9,p,a,b\n',
        [Row("7", f"lines 2 to 3: {AFTER}"), Row("8", f"lines 4 to 5: {AFTER}"), Row("9")],
    ),
    "rows within quotes, another width": (
        b'2,p,"Hello,b\n3,p,a,b\n4,p,a,27"\n5,p,a,b\n',
        [Row("2", wide(3)), Row("3"), Row("4"), Row("5")],
    ),
    "rows within quotes that open on a later line": (
        b'2,"two\nlines","Hello,b\n3,p,a,b\n4,p,a,27"\n5,p,a,b\n',
        [Row("2", f"lines 2 to 3: {wide(3)}"), Row("3"), Row("4"), Row("5")],
    ),
    "a quote in each of two rows": (
        b'2,"5 inch,a,b\n3,"6 inch,a,b\n4,p,a,b\n',
        [Row("2", AFTER), Row("3", OPEN), Row("4")],
    ),
    "a row cut off, and rows": (b'2,"Hel\n3,"p",a,b\n4,p,a,b\n', [Row("2", AFTER), Row("3"), Row("4")]),
    "lines in a record of another width": (
        b'1,"line one\n9,x,y,z\nend",a,b,c\n9,p,a,b\n',
        [Row("1", f"lines 2 to 4: {wide(5)}"), Row("9")],
    ),
    "a quote that never closes, before rows": (
        b'1,"open,a,b\n2,p,a,b\n3,p,a\n4,p,a,b\n',
        [Row("1", OPEN), Row("2"), Row("3", wide(3)), Row("4")],
    ),
    "a cell that breaks off": (b'1,p,a,b\n2,"line one\n9,x,y,z\nand th', [Row("1"), Row("2", f"lines 3 to 5: {OPEN}")]),
    "a quote that never closes, before blank lines": (b'1,p,a,b\n2,"p,a\n\n\n', [Row("1"), Row("2", OPEN)]),
    "a row of many cells": (
        b"," * 5000 + b"\n1,p,a,b\n",
        [Row(None, "has 1000 cells or more beyond the 4 that the header names"), Row("1")],
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_costs_itself_alone(tmp_path: Path, name: str) -> None:
    lines, expected = DAMAGED[name]
    (tmp_path / "in.csv").write_bytes(HEADER + lines)
    assert_accounted(tmp_path, [tmp_path / "in.csv"], [expected])


def test_rows_within_the_quotes_of_a_good_record_are_a_warning(tmp_path: Path) -> None:
    path, rows = tmp_path / "in.csv", b"".join(b"%d,p,a,b\n" % n for n in range(100, 5000))
    path.write_bytes(HEADER + b'1,"two\nlines",a,b\n2,p,a,"Hello\n3,p,a,b\n4,p,a,b\n5,p,a,27"\n6,p,a,b\n' + rows)
    counts, _ = ingested(tmp_path, [path])
    assert (counts.rows, counts.rejects, counts.warnings) == (4903, 0, 1)
    told = "lines 5 to 7 look like rows within its quotes; is one missing, or one too many, from line 4 on?"
    assert counts.warned == [f"{path}, row 2 (id 2): {told}"]


@pytest.mark.parametrize("text", ["1, 2, 3, 4", "1. a, b, c", "a,b,c,d", "7,a,b", '7,""a"",b,c', "2024-01-01,a,b,c"])
def test_lists_and_tables_within_a_cell_are_no_warning(tmp_path: Path, text: str) -> None:
    (tmp_path / "in.csv").write_bytes(HEADER + f'1,"look:\n{text}\n",a,b\n2,p,a,b\n'.encode())
    assert ingested(tmp_path, [tmp_path / "in.csv"])[0].warnings == 0


def test_only_the_first_warnings_are_kept_in_words(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(HEADER + b"".join(b'%d,"x\n7,a,b,c\n",p,q\n' % n for n in range(50)))
    counts, _ = ingested(tmp_path, [path])
    assert (counts.warnings, len(counts.warned)) == (50, 10)
    assert ingested(tmp_path, [path])[0] == counts  # told by the shards


@pytest.mark.parametrize(
    ("ids", "one", "another"),
    [
        (["1", "20", "300"], b"4", b"x4"),
        (["3c9d1f00aa", "0123456789"], b"ffffffffff", b"fff"),
        (["row-1", "row-22"], b"row-3", b"3"),
        (["a1", "2b", "c_3"], b"z9", b"words"),
        (["alpha", "beta"], b"gamma", b"two words"),
        (["two words", "é"], b"anything", b" "),
        (["7", "    return a", "9"], b"5", b"return"),
    ],
)
def test_kinds_of_ids(ids: list[str], one: bytes, another: bytes) -> None:
    kind = id_kind(ids).pattern.encode()
    assert re.fullmatch(kind, one)
    assert not re.fullmatch(kind, another)


MARKS = st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r\r\n", "a", "é", "\x00", "\u2028", " ", '"b"', '"c,\n"'])


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MARKS, max_size=30).map("".join))
def test_records_are_those_of_python(text: str) -> None:
    """What Python's `csv` makes of any text when it is not strict, and whether it refuses it when it is."""
    lines = re.findall("[^\n]*\n", text + "\n")
    data, at, taken = "".join(lines).encode(), 0, 0
    python = csv.reader(lines)
    for expected in python:
        record = record_at(data, at, 100)
        if not isinstance(record, Record):
            assert python.line_num == len(lines)
            with pytest.raises(csv.Error, match=r"unexpected end of data|expected after"):
                list(csv.reader(lines[taken:], strict=True))
            return
        assert data.count(b"\n", 0, record.end) == python.line_num
        assert record.number == (len(expected) or 1)
        assert record.is_blank == (not expected)
        try:
            assert [cell.decode() for cell in record.cells] == (next(csv.reader(lines[taken:], strict=True)) or [""])
        except csv.Error:
            assert record.fault == AFTER
        else:
            assert record.fault is None
        at, taken = record.end, python.line_num
    assert at == len(data)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Records above 64 KiB are held only as far as the largest cell, 256 KiB, says."""
    for module in (csv_blocks, csv_records):
        monkeypatch.setattr(module, "HELD", 1 << 16)
        monkeypatch.setattr(module, "BLOCK", 1 << 15)
    return 1 << 18


def read(path: Path, largest_cell: int) -> list[Row]:
    tables = read_rows(str(path), largest_cell=largest_cell)
    return [Row(row["id"], row["reason"]) for table in tables for row in table.to_pylist()]


LARGE = b"some words, "
BEYOND = {
    "quoted": (b'"' + LARGE * 30_000 + b'"', "response_a has"),
    "quoted, with lines": (b'"' + LARGE * 30_000 + b'\n""x""\n' * 9 + b'"', "lines 3 to 21: response_a has"),
    "damaged": (b'"x\n' + LARGE.replace(b",", b"") * 50_000 + b'"y""z', "lines 3 to 4: response_a has"),
    "not quoted": (LARGE.replace(b",", b"") * 40_000 + b"\r\r", "response_a has"),
    "quotes alone": (b'"' * 2_000_002, "response_a has"),
    "commas alone": (b"," * 2_000_000, None),
}


@pytest.mark.parametrize("name", BEYOND)
def test_cell_beyond_the_limit_is_a_reject_that_names_it(tmp_path: Path, small: int, name: str) -> None:
    cell, told = BEYOND[name]
    path = tmp_path / "in.csv"
    path.write_bytes(HEADER + b"1,p,a,b\n2,p," + cell + b',"b\nb"\n3,p,a,"' + b"b" * small + b'"\n4,p,a,b\n')
    lines = cell.count(b"\n")
    reason = f"{told} more than largest_cell = {small} bytes"
    if told is None:
        reason = "lines 3 to 4: has 1000 cells or more beyond the 4 that the header names"
    elif not lines:
        reason = f"lines 3 to 4: {reason}"
    else:
        reason = reason.replace(f"3 to {3 + lines}:", f"3 to {4 + lines}:")
    assert read(path, small) == [Row("1"), Row("2", reason), Row("3"), Row("4")]


@pytest.mark.parametrize("closes", [False, True])
def test_quote_that_stays_open_beyond_the_limit_costs_its_line(tmp_path: Path, small: int, closes: bool) -> None:
    rows = [b"%d,some words,more words,and more\n" % n for n in range(20_000)]
    rows[3] = rows[3].replace(b",some", b',"some')
    rows[17_000] = rows[17_000].replace(b"more\n", b'more"\n' if closes else b"more\n")
    path = tmp_path / "in.csv"
    path.write_bytes(HEADER + b"".join(rows))
    assert read(path, small) == [Row(str(n), OPEN if n == 3 else None) for n in range(20_000)]


def test_memory_and_time_for_what_is_beyond_the_limit_are_bounded(tmp_path: Path, small: int) -> None:
    path = tmp_path / "in.csv.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(HEADER + b'1,"')
        for _ in range(60):
            file.write((b"x, " * 333 + b"\n") * (1 << 10))
        file.write(b'",a,b\n2,p,a,b\n')
    tracemalloc.start()
    found = read(path, small)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.id for row in found] == ["1", "2"]
    assert found[0].reason == f"lines 2 to {2 + (60 << 10)}: prompt has more than largest_cell = {small} bytes"
    assert peak < 24 << 20, "sixty megabytes were held at once"
