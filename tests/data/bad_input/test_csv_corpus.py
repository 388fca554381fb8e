"""Malformed CSV files and rows, each with what exactly must become of every row."""

import sys
from pathlib import Path

import pytest

from lmsys_ray.data.conversations import CellForm
from tests.data.bad_input.outcomes import NO_ID, REPEATED, Row, assert_accounted

HEADER = b"id,prompt,response_a,response_b\n"
GOOD = b'7,"[""x""]",y,"[null]"\n'
TEN = "9" * 10
BOM = b"\xef\xbb\xbf"
OPEN = "a quote is opened and never closed"
AFTER = "text follows a closing quote"
RETURN = "a carriage return stands outside quotes"


def cells(found: int) -> str:
    return f"has {found} cells where the header names 4"


def invalid(name: str, byte: int) -> str:
    return f"{name} is not valid UTF-8 (byte 0x{byte:02x})"


IF_TEXT = "; plain text needs --set cells=text"


# What stands between the header and a good row, and what becomes of it.
ROWS: dict[str, tuple[bytes, list[Row]]] = {
    "latin-1 byte": (b"1,caf\xe9,b,c\n", [Row("1", invalid("prompt", 0xE9))]),
    "windows-1252 quotes": (b"1,a,\x93b\x94,c\n", [Row("1", invalid("response_a", 0x93))]),
    "utf-8 cut in a cell": (b"1,a,b,\xf0\x9f\x98\n", [Row("1", invalid("response_b", 0xF0))]),
    "overlong utf-8": (b"1,\xc0\xaf,b,c\n", [Row("1", invalid("prompt", 0xC0))]),
    "utf-8 of a surrogate": (b"1,\xed\xa0\xbd,b,c\n", [Row("1", invalid("prompt", 0xED))]),
    "id is no utf-8": (b"\xff1,a,b,c\n", [Row(None, invalid("id", 0xFF))]),
    "two cells are no utf-8": (b"1,a,\xfe,\xff\n", [Row("1", invalid("response_a", 0xFE))]),
    "byte order mark within": (BOM + b"1,a,b,c\n", [Row("\ufeff1")]),
    "nul in a cell": (b"1,a\x00b,b,c\n", [Row("1")]),
    "nul in an id": (b"1\x002,a,b,c\n", [Row("1\x002")]),
    "control characters": (b"1,\x01\x1b[31m\x7f,b,c\n", [Row("1")]),
    "escaped lone surrogate": (b'1,"[""\\ud83d""]",b,c\n', [Row("1")]),
    "escaped surrogate pair": (b'1,"[""\\ud83d\\ude00""]",b,c\n', [Row("1")]),
    "escape that is none": (
        b'1,"[""\\x""]",b,c\n',
        [Row("1", "prompt is not valid JSON (Invalid \\escape at character 2)" + IF_TEXT)],
    ),
    "escape cut short": (
        b'1,"[""\\u12""]",b,c\n',
        [Row("1", "prompt is not valid JSON (Invalid \\uXXXX escape at character 3)" + IF_TEXT)],
    ),
    "crlf": (b'1,a,b,c\r\n2,"x\r\ny",b,c\r\n', [Row("1"), Row("2")]),
    "carriage return in a cell": (b"1,a\rb,b,c\n", [Row("1")]),
    "carriage return in a row of another width": (b"1,a\rb,b\n", [Row("1", RETURN)]),
    "carriage return behind a closing quote": (b'1,"a"\rb,b,c\n', [Row("1", AFTER)]),
    "quoted carriage return": (b'1,"a\rb",b,c\n', [Row("1")]),
    "old macintosh line ends": (b"1,a,b,c\r2,a,b,c\r\n", [Row("1", RETURN)]),
    "two carriage returns": (b"1,a,b,c\r\r\n", [Row("1")]),
    "blank lines": (b"\n\r\n\n1,a,b,c\n\n", [Row("1")]),
    "line of spaces": (b"   \n", [Row(None, cells(1))]),
    "line of commas": (b",,,\n", [Row(None, NO_ID)]),
    "too few cells": (b"1,a,b\n", [Row("1", cells(3))]),
    "too many cells": (b"1,a,b,c,d\n", [Row("1", cells(5))]),
    "trailing comma": (b"1,a,b,c,\n", [Row("1", cells(5))]),
    "unquoted comma": (b'1,"a",b, and so on,c\n', [Row("1", cells(5))]),
    "prose without an id": (b"some words, more\n", [Row(None, cells(2))]),
    "unquoted list of turns": (b'1,["a"],b,c\n', [Row("1")]),
    "unquoted list of two turns": (b'1,["a","b"],b,c\n', [Row("1", AFTER)]),
    "quote within a plain cell": (b'1,5" disk,b,c\n', [Row("1")]),
    "space before a quote": (b'1, "a",b,c\n', [Row("1")]),
    "backslash before a quote": (b'1,"a\\"b",b,c\n', [Row("1", AFTER)]),
    "text behind a quote": (b'1,"a"x,b,c\n', [Row("1", AFTER)]),
    "space behind a quote": (b'1,"a" ,b,c\n', [Row("1", AFTER)]),
    "quotes of turns not doubled": (b'1,"["a"]",b,c\n', [Row("1", AFTER)]),
    "unclosed quote before a quote": (b'1,"never closed,b,c\n2,"[""x""]",b,c\n', [Row("1", AFTER), Row("2")]),
    "stray quote alone": (b'"x\n8,"[""x""]",b,c\n', [Row(None, AFTER), Row("8")]),
    "empty quoted cell": (b'1,"",b,c\n', [Row("1")]),
    "only quotes": (b'1,"""",b,c\n', [Row("1")]),
    "empty cells": (b"1,,,\n", [Row("1")]),
    "id beyond int64": (b"9223372036854775808,a,b,c\n", [Row(str(2**63))]),
    "id below int64": (b"-9223372036854775809,a,b,c\n", [Row(str(-(2**63) - 1))]),
    "id of a thousand digits": (TEN.encode() * 100 + b",a,b,c\n", [Row(TEN * 100)]),
    "ids that differ as text": (b"007,a,b,c\n07,a,b,c\n7.0,a,b,c\n", [Row("007"), Row("07"), Row("7.0")]),
    "ids that differ by a space": (b"1,a,b,c\n 1,a,b,c\n", [Row("1"), Row(" 1")]),
    "ids that differ by normal form": (
        "\u00e9,a,b,c\ne\u0301,a,b,c\n".encode(),
        [Row("\u00e9"), Row("e\u0301")],
    ),
    "ids that look null": (b"null,a,b,c\nNaN,a,b,c\nNone,a,b,c\n", [Row("null"), Row("NaN"), Row("None")]),
    "id missing": (b",a,b,c\n", [Row(None, NO_ID)]),
    "id of white space": ("\u2003 \t,a,b,c\n".encode(), [Row(None, NO_ID)]),
    "id with a line break": (b'"1\n2",a,b,c\n', [Row(None, "id holds a line break")]),
    "id repeated": (b"1,a,b,c\n2,a,b,c\n1,z,z,z\n", [Row("1"), Row("2"), Row("1", REPEATED)]),
    "id of a bad row repeated": (b"1,a,b\n1,a,b,c\n", [Row("1", cells(3)), Row("1", REPEATED)]),
    "header repeated": (HEADER, [Row("id")]),
    "html entity and markup": (b"1,<script>alert(1)</script>,&quot;,c\n", [Row("1")]),
    "formula": (b"1,=HYPERLINK(A1),b,c\n", [Row("1")]),
    "ten thousand bad rows": (
        b"".join(b"k%d,a\n" % n for n in range(10_000)),
        [Row(f"k{n}", cells(2)) for n in range(10_000)],
    ),
    "bad and good rows in turn": (
        b"".join(b'k%d,5" disk,b,c\nm%d,a\n' % (n, n) for n in range(3000)),
        [row for n in range(3000) for row in (Row(f"k{n}"), Row(f"m{n}", cells(2)))],
    ),
}

JSON_ERROR = "prompt is not valid JSON"
TRAILING = (
    "Illegal trailing comma before end of array at character 4"
    if sys.version_info >= (3, 13)
    else "Expecting value at character 5"
)
# A cell of a CSV, and why its row cannot be scored; for cells that are read by themselves and as JSON only.
CELLS: dict[str, tuple[str, CellForm, str | None]] = {
    "nested list": ('["a",["b"]]', "auto", "prompt has a list as turn 2 where text is expected"),
    "object as a turn": ('["a",{"role":"user"}]', "auto", "prompt has an object as turn 2 where text is expected"),
    "object instead of a list": ('{"role":"user"}', "json", "prompt is JSON but no list of turns (found an object)"),
    "object read as text": ('{"role":"user"}', "auto", None),
    "messages": ('[{"role":"user","content":"a"}]', "auto", None),
    "messages for the other side": (
        '[{"role":"assistant","content":"a"}]',
        "auto",
        "prompt holds messages of assistant; give those of the user alone, others in a response",
    ),
    "messages cut short": (
        '[{"role":"user","content":"a',
        "auto",
        f"{JSON_ERROR} (Unterminated string starting at at character 26)",
    ),
    "messages printed by python": (
        "[{'role': 'user'}]",
        "auto",
        f"{JSON_ERROR} (Expecting property name enclosed in double quotes at character 2)",
    ),
    "messages as text": ('[{"role":"user","content":[]}', "text", None),
    "objects of another kind": ('[{"a":1}]', "auto", None),
    "objects of another kind as json": (
        '[{"a":1}]',
        "json",
        "prompt has an object without content as turn 1 where a message is expected",
    ),
    "objects nested too deeply": ('[{"a":' + "[" * 100_000, "auto", None),
    "text instead of a list": ('"a"', "json", "prompt is JSON but no list of turns (found a text)"),
    "number instead of a list": ("12", "json", "prompt is JSON but no list of turns (found a number)"),
    "boolean instead of a list": ("true", "json", "prompt is JSON but no list of turns (found a boolean)"),
    "null instead of a list": ("null", "json", "prompt is JSON but no list of turns (found null)"),
    "numbers and booleans as turns": ('["a",1,-2.5e3,true,false,NaN]', "auto", None),
    "list of numbers alone": ("[1,2]", "auto", None),
    "bracketed text": ("[sic] is text", "auto", None),
    "list never closed": ('["a"', "auto", f"{JSON_ERROR} (Expecting ',' delimiter at character 4)"),
    "turn never closed": ('["a', "auto", f"{JSON_ERROR} (Unterminated string starting at at character 1)"),
    "list closed twice": ('["a"]]', "auto", f"{JSON_ERROR} (Extra data at character 5)"),
    "trailing comma": ('["a",]', "auto", f"{JSON_ERROR} ({TRAILING})"),
    "missing comma": ('["a" "b"]', "auto", f"{JSON_ERROR} (Expecting ',' delimiter at character 5)"),
    "list and text behind it": ('["a"] and more', "auto", None),
    "python list": ("['a', 'b']", "json", None),
    "python list cut short": ("['a', 'b", "auto", f"{JSON_ERROR} (Expecting value at character 1)"),
    "none for null": ('["a",None]', "auto", f"{JSON_ERROR} (Expecting value at character 5)"),
    "null misspelt": ("[nul]", "auto", None),
    "nested too deeply": ('["a",' + "[" * 100_000, "auto", "prompt is JSON nested too deeply"),
    "number too long": ('["a",' + "9" * 5000 + "]", "auto", "prompt holds a number too long to be a turn"),
    "a million turns": ("[" + ",".join(['"t"'] * 1_000_000) + "]", "auto", None),
    "a million turns, the last one bad": (
        "[" + '"t",' * 999_999 + "{}]",
        "auto",
        "prompt has an object as turn 1000000 where text is expected",
    ),
    "white space of unicode before a list": ('\u2003["a"]', "auto", f"{JSON_ERROR} (Expecting value at character 0)"),
    "control characters in a turn": ('["\x00\x1f\n\t"]', "auto", None),
    "empty list": ("[]", "json", None),
    "empty cell as json": ("", "json", f"{JSON_ERROR} (Expecting value at character 0)"),
    "ten megabytes": ('["' + "é" * 5_000_000 + '"]', "auto", None),
}


@pytest.mark.parametrize("name", ROWS)
def test_row_of_a_csv(tmp_path: Path, name: str) -> None:
    lines, expected = ROWS[name]
    path = tmp_path / "in.csv"
    path.write_bytes(HEADER + lines + GOOD)
    assert_accounted(tmp_path, [path], [[*expected, Row("7")]])


@pytest.mark.parametrize("name", CELLS)
def test_cell_of_a_csv(tmp_path: Path, name: str) -> None:
    cell, form, reason = CELLS[name]
    if form == "auto" and reason and "holds messages" not in reason:
        reason += IF_TEXT
    path = tmp_path / "in.csv"
    quoted = cell.replace('"', '""').encode()
    path.write_bytes(HEADER + b'1,"' + quoted + b'","[""b""]","[""c""]"\n7,"[""x""]","[""y""]","[null]"\n')
    assert_accounted(tmp_path, [path], [[Row("1", reason), Row("7")]], form)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b"1,a,b,c", [Row("1")]),
        (b'1,a,b,"c"', [Row("1")]),
        (b"1,a,b,c\r", [Row("1")]),
        (b"1,a,b", [Row("1", cells(3))]),
        (b'1,a,b,"c', [Row("1", OPEN)]),
        (b'1,"open,b,c\n2,a,b,c\n3,a,b,c', [Row("1", OPEN), Row("2"), Row("3")]),
        (b'1,a,b,"c""', [Row("1", OPEN)]),
        (b"\n\n\n", []),
        (b"1,a,b,c\x1a", [Row("1")]),
    ],
)
def test_end_of_a_csv(tmp_path: Path, tail: bytes, expected: list[Row]) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(HEADER + GOOD + tail)
    assert_accounted(tmp_path, [path], [[Row("7"), *expected]])


@pytest.mark.slow
@pytest.mark.timeout(120)  # A scan that is quadratic in the length of a line took minutes.
def test_cells_of_fifty_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    turn = b"word, " * (50_000_000 // 6)
    with path.open("wb") as file:
        file.write(HEADER + b'1,"[""' + turn + b'""]",b,c\n2,"' + turn + b'\xff",b,c\n')
        file.write(b'3,"[""' + turn + b'",b,c\n4,"unclosed ' + turn + b",b,c\n" + GOOD)
    expected = [
        Row("1"),
        Row("2", invalid("prompt", 0xFF)),
        Row("3", "prompt is not valid JSON (Unterminated string starting at at character 1)" + IF_TEXT),
        Row("4", AFTER),
        Row("7"),
    ]
    assert_accounted(tmp_path, [path], [expected])
