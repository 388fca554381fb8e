"""Files that are not what they should be, damaged files, and rows of JSON Lines and Parquet."""

import bz2
import datetime
import gzip
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.readers import check_columns, read_rows
from lmsys_ray.errors import RunError, UsageError
from tests.data.bad_input.outcomes import NO_ID, REPEATED, Row, assert_accounted

HEADER = b"id,prompt,response_a,response_b\n"
GOOD = b"7,a,b,c\n"
RECORD = {"id": 7, "prompt": "a", "response_a": "b", "response_b": "c"}
LINE = json.dumps(RECORD).encode() + b"\n"
TABLE = pa.table({"id": ["7"], "prompt": ["a"], "response_a": ["b"], "response_b": ["c"]})


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


# Files that no row can be read of: a usage error, told before anything starts.
UNUSABLE = {
    "empty csv": ("a.csv", b"", "is empty; its first line must name the columns id, prompt"),
    "empty packed csv": ("a.csv.gz", b"", "is empty"),
    "packed nothing": ("a.csv.gz", gzip.compress(b""), "is empty"),
    "blank lines alone": ("a.csv", b"\n\r\n", "is empty"),
    "empty json lines": ("a.jsonl", b"\n \n", "is empty; each line must be an object"),
    "empty parquet": ("a.parquet", b"", "not a Parquet file, or is truncated"),
    "no header": ("a.csv", GOOD, "has no column id, prompt, response_a, response_b; it has 7, a, b, c"),
    "a column missing": ("a.csv", b"id,prompt,response_a\n", "has no column response_b"),
    "capital letters": ("a.csv", b"ID,Prompt,response_a,response_b\n", "has no column id, prompt; it has ID"),
    "spaces in the header": ("a.csv", b"id, prompt,response_a,response_b\n", "has no column prompt"),
    "semicolons": ("a.csv", HEADER.replace(b",", b";"), "is its delimiter a comma"),
    "tabs": ("a.csv", HEADER.replace(b",", b"\t"), "is its delimiter a comma"),
    "header never closed": ("a.csv", b'"id,prompt,response_a,response_b\n1,a,b,c\n', "has a broken header"),
    "header with a carriage return": ("a.csv", b"id,prompt\r,response_a,response_b\n", "has a broken header"),
    "utf-16": ("a.csv", HEADER.decode().encode("utf-16"), "is UTF-16; convert it to UTF-8"),
    "utf-16 json": ("a.jsonl", LINE.decode().encode("utf-16"), "is UTF-16; convert it to UTF-8"),
    "utf-16 without a mark": ("a.csv", HEADER.decode().encode("utf-16-le"), "is UTF-16LE; convert it to UTF-8"),
    "utf-16 from its big end": ("a.csv", HEADER.decode().encode("utf-16-be"), "is UTF-16BE; convert it to UTF-8"),
    "utf-32": ("a.csv", HEADER.decode().encode("utf-32"), "is UTF-32; convert it to UTF-8"),
    "utf-32 without a mark": ("a.jsonl", LINE.decode().encode("utf-32-le"), "is UTF-32; convert it to UTF-8"),
    "utf-16, packed": ("a.csv.gz", gzip.compress(HEADER.decode().encode("utf-16-le")), "unpacked, is UTF-16LE"),
    "zip": ("a.csv", b"PK\x03\x04\x14\x00", "is a zip file, or a spreadsheet by its content; unpack it"),
    "zip named csv.gz": ("a.csv.gz", b"PK\x03\x04\x14\x00", "is a zip file"),
    "bzip2": ("a.csv", bz2.compress(HEADER + GOOD), "is compressed with bzip2 by its content; unpack it by bunzip2"),
    "xz": ("a.csv", lzma.compress(HEADER + GOOD), "is compressed with xz by its content; unpack it by unxz"),
    "zstd": ("a.jsonl", pa.compress(LINE, "zstd", asbytes=True), "is compressed with zstd by its content"),
    "gzip within gzip": ("a.csv.gz", gzip.compress(gzip.compress(HEADER)), "gzip twice; unpack it once"),
    "carriage returns alone": (
        "a.csv",
        (HEADER + GOOD * 300_000).replace(b"\n", b"\r"),
        "has a broken header: a carriage return stands outside quotes",
    ),
    "one line": ("a.csv", b"id,prompt" * 300_000, "has a broken header: it goes on for more than"),
    "gzip by its content": ("a.csv", gzip.compress(HEADER), "rename it to"),
    "gzip by its name": ("a.csv.gz", HEADER, "rename it without .gz"),
    "parquet named csv": ("a.csv", parquet(TABLE), "rename it to end in .parquet"),
    "csv named parquet": ("a.parquet", HEADER + GOOD, "not a Parquet file"),
    "another format": ("a.tsv", HEADER, "has an unknown ending; accepted are .csv"),
    "parquet cut short": ("a.parquet", parquet(TABLE)[:-20], "not a Parquet file, or is truncated"),
    "parquet without its head": ("a.parquet", parquet(TABLE)[40:-1], "not a Parquet file"),
    "parquet without a column": ("a.parquet", parquet(TABLE.drop_columns("id")), "has no column id; it has prompt"),
    "json lines without a key": ("a.jsonl", b'{"id": 1}\n', "has no column prompt"),
    "parquet of floats": ("a.parquet", parquet(TABLE.set_column(0, "id", pa.array([1.5]))), "has double in column id"),
    "parquet of booleans": (
        "a.parquet",
        parquet(TABLE.set_column(1, "prompt", pa.array([True]))),
        "has bool in column prompt; accepted: text or lists of text",
    ),
    "parquet of structs": (
        "a.parquet",
        parquet(TABLE.set_column(1, "prompt", pa.array([{"role": "user"}]))),
        "in column prompt; accepted: text or lists of text",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_file_is_a_usage_error(tmp_path: Path, name: str) -> None:
    file, content, sentence = UNUSABLE[name]
    path = tmp_path / file
    path.write_bytes(content)
    for read in (lambda: check_columns(str(path)), lambda: list(read_rows(str(path)))):
        with pytest.raises(UsageError, match=r"^input: ") as raised:
            read()
        assert sentence in str(raised.value)
        assert "\n" not in str(raised.value)


def test_csv_named_json_lines_has_no_good_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"7\n" + GOOD)
    error = "is not valid JSON (Extra data: line 1 column 2 (char 1))"
    assert_accounted(tmp_path, [path], [[Row(None, "is JSON but no object"), Row(None, error)]])


@pytest.mark.parametrize("content", [HEADER, HEADER[:-1], b"\xef\xbb\xbf" + HEADER, HEADER + b"\r\n\n"])
def test_header_alone_is_no_row(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    assert_accounted(tmp_path, [path], [[]])


def line(**values: Any) -> bytes:
    return json.dumps({**RECORD, "id": 1, **values}).encode() + b"\n"


CUT = "is not valid JSON (Expecting ',' delimiter: line 1 column 24 (char 23))"
TWO = f"is not valid JSON (Extra data: line 1 column {len(LINE)} (char {len(LINE) - 1}))"
NEITHER = "is neither text nor a list of turns"
NESTED = "prompt has a list as turn 2 where text is expected"
USER_SAYS = {"role": "user", "content": "a"}
ASSISTANT_SAYS = {"role": "assistant", "content": "b"}
BOTH = "holds messages of both user and assistant; give the user's in prompt, the assistant's in a response"
NOT_THE_USERS = "prompt holds messages of assistant; give those of the user alone, others in a response"
NOT_THE_ANSWER = "response_a holds messages of user; give those of the assistant alone, others in the prompt"
NO_MESSAGE = "prompt has an object without content as turn 1 where a message is expected"
NO_UTF8 = "prompt is not valid UTF-8 (byte 0xff)"
SECOND_NUMBER = "prompt has a number as turn 2 where text is expected"
MISSING = Row("1", "prompt is missing")
DAY = datetime.date(2024, 1, 1)


def first(found: str) -> str:
    return f"prompt has {found} as turn 1 where text is expected"


REST = b', "response_a": "", "response_b": ""}\n'
JSON_LINES: dict[str, tuple[bytes, list[Row]]] = {
    "cut line": (b'{"id": 1, "prompt": "a"\n', [Row(None, CUT)]),
    "two objects on a line": (LINE[:-1] + LINE, [Row(None, TWO)]),
    "list": (b"[1]\n", [Row(None, "is JSON but no object")]),
    "no utf-8": (b'{"id": 1, "prompt": "\xff"}\n', [Row(None, "is not valid UTF-8 (byte 0xff)")]),
    "nested too deeply": (b'{"id": ' + b"[" * 100_000 + b"\n", [Row(None, "is JSON nested too deeply")]),
    "id missing": (line(id=None), [Row(None, NO_ID)]),
    "id that is a float": (line(id=1.0), [Row(None, NO_ID)]),
    "id that is a boolean": (line(id=True), [Row(None, NO_ID)]),
    "id that is a list": (line(id=[1]), [Row(None, NO_ID)]),
    "id with a lone surrogate": (
        b'{"id": "\\ud83d", "prompt": ""' + REST,
        [Row(None, "id is not valid UTF-8 (byte 0xed)")],
    ),
    "id with escaped bytes": (
        b'{"id": "\\udcc3\\udca9", "prompt": ""' + REST,
        [Row(None, "id is not valid UTF-8 (byte 0xed)")],
    ),
    "id beyond int64": (line(id=2**63), [Row(str(2**63))]),
    "id as number and as text": (line() + line(id="1"), [Row("1"), Row("1", REPEATED)]),
    "cell missing": (line(prompt=None), [Row("1", "prompt is missing")]),
    "key missing": (b'{"id": 1, "prompt": "a", "response_b": "c"}\n', [Row("1", "response_a is missing")]),
    "cell that is an object": (line(prompt={}), [Row("1", f"prompt {NEITHER}")]),
    "cell that is a number": (line(response_b=5), [Row("1", f"response_b {NEITHER}")]),
    "lists of turns": (line(prompt=["a", None, 1, True]), [Row("1")]),
    "list in a list": (line(prompt=["a", ["b"]]), [Row("1", NESTED)]),
    "list in a list, and no text": (line(prompt=[["a"]]), [Row("1", first("a list"))]),
    "list of numbers": (line(prompt=[1, 2.5]), [Row("1", first("a number"))]),
    "list of a number and a boolean": (line(prompt=[1, True]), [Row("1", first("a number"))]),
    "list of booleans": (line(prompt=[True]), [Row("1", first("a boolean"))]),
    "list that begins with a number": (line(prompt=[1, "a"]), [Row("1")]),
    "list of messages": (line(prompt=[USER_SAYS, USER_SAYS]), [Row("1")]),
    "message": (line(response_b=ASSISTANT_SAYS), [Row("1")]),
    "list of messages by both": (line(response_a=[USER_SAYS, ASSISTANT_SAYS]), [Row("1", f"response_a {BOTH}")]),
    "list of messages for the other side": (line(prompt=[ASSISTANT_SAYS]), [Row("1", NOT_THE_USERS)]),
    "list of objects": (line(prompt=[{"a": 1}]), [Row("1", NO_MESSAGE)]),
    "list of lists in a row without an id": (line(id=None, prompt=[["a"]]), [Row(None, NO_ID)]),
    "lone surrogate in a cell": (b'{"id": 1, "prompt": "\\ud83d"' + REST, [Row("1")]),
    "further keys, labels or none": (line(winner_tie=1, x={}), [Row("1")]),
    "crlf and blank lines": (line().replace(b"\n", b"\r\n") + b"\r\n\n", [Row("1")]),
}


@pytest.mark.parametrize("name", JSON_LINES)
def test_row_of_json_lines(tmp_path: Path, name: str) -> None:
    lines, expected = JSON_LINES[name]
    first, path = LINE.replace(b"7", b"6"), tmp_path / "in.jsonl"
    path.write_bytes(first + lines.rstrip(b"\n") + b"\n" + LINE)
    assert_accounted(tmp_path, [path], [[Row("6"), *expected, Row("7")]])


PARQUET: dict[str, tuple[str, Any, list[Row]]] = {
    "null ids": ("id", pa.array([None, "1"]), [Row(None, NO_ID), Row("1")]),
    "ids of int64": ("id", pa.array([2**63 - 1, -(2**63)]), [Row(str(2**63 - 1)), Row(str(-(2**63)))]),
    "ids of uint64": ("id", pa.array([2**64 - 1, 0], pa.uint64()), [Row(str(2**64 - 1)), Row("0")]),
    "ids as a dictionary": ("id", pa.array(["1", "2"]).dictionary_encode(), [Row("1"), Row("2")]),
    "column of nulls": ("prompt", pa.nulls(2), [Row("0", "prompt is missing"), Row("1", "prompt is missing")]),
    "bytes": ("prompt", pa.array([b"\xff", b"a"]), [Row("0", "prompt is not valid UTF-8 (byte 0xff)"), Row("1")]),
    "lists": ("prompt", pa.array([["a", None], None]), [Row("0"), Row("1", "prompt is missing")]),
    "lists of lists": ("prompt", pa.array([[["a"]], []]), [Row("0", first("a list")), Row("1")]),
    "lists of numbers": ("prompt", pa.array([[1], [None, 2]]), [Row("0", first("a number")), Row("1", SECOND_NUMBER)]),
    "lists of dates": ("prompt", pa.array([[DAY], None]), [Row("0", first("a date")), Row("1", "prompt is missing")]),
    "lists of other objects": ("prompt", pa.array([[{"a": 1}], []]), [Row("0", NO_MESSAGE), Row("1")]),
    "lists of bytes": ("prompt", pa.array([[b"a"], [b"a", b"\xff"]]), [Row("0"), Row("1", NO_UTF8)]),
    "lists of text that is no utf-8": (
        "prompt",
        pa.array([[b"a"], [b"\xff"]]).cast(pa.list_(pa.string()), safe=False),
        [Row("0"), Row("1", NO_UTF8)],
    ),
    "lists of a fixed size": ("prompt", pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [Row("0"), MISSING]),
    "lists of texts by dictionary": (
        "prompt",
        pa.array([["a"], ["b", None]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        [Row("0"), Row("1")],
    ),
    "large lists": ("prompt", pa.array([["a"], [None]], pa.large_list(pa.large_string())), [Row("0"), Row("1")]),
    "lists of nulls": ("prompt", pa.array([[None], []]), [Row("0"), Row("1")]),
    "messages": ("prompt", pa.array([[USER_SAYS], [ASSISTANT_SAYS]]), [Row("0"), Row("1", NOT_THE_USERS)]),
    "single messages": ("response_a", pa.array([ASSISTANT_SAYS, USER_SAYS]), [Row("0"), Row("1", NOT_THE_ANSWER)]),
    "numbers": ("prompt", pa.array([1, 2]), [Row("0"), Row("1")]),
}


@pytest.mark.parametrize("name", PARQUET)
def test_rows_of_parquet(tmp_path: Path, name: str) -> None:
    column, values, expected = PARQUET[name]
    columns = {
        "id": pa.array(["0", "1"]),
        **dict.fromkeys(("prompt", "response_a", "response_b"), pa.array(["t", "t"])),
    }
    path = tmp_path / "in.parquet"
    path.write_bytes(parquet(pa.table({**columns, column: values})))
    assert_accounted(tmp_path, [path], [expected])


def test_ids_repeat_across_files_whose_columns_differ(tmp_path: Path) -> None:
    labelled = b"source,response_b,id,response_a,prompt,winner_tie\nx,c,1,b,a,1\nx,c,7,b,a,0\n"
    contents = {
        "a.csv": HEADER + GOOD,
        "b.csv": labelled,
        "c.jsonl": LINE,
        "d.parquet": parquet(TABLE),
        "e.csv": HEADER,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    repeated = [Row("7", REPEATED)]
    expected = [[Row("7")], [Row("1"), *repeated], repeated, repeated, []]
    assert_accounted(tmp_path, [tmp_path / name for name in contents], expected)


def test_file_named_twice_repeats_all_its_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + GOOD + b",a,b,c\n8,a,b,c\n")
    rows = [Row("7"), Row(None, NO_ID), Row("8")]
    assert_accounted(tmp_path, [path, path], [rows, [Row("7", REPEATED), rows[1], Row("8", REPEATED)]])


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("damage", ["cut short", "broken"])
def test_damaged_gzip_stops_with_a_sentence(tmp_path: Path, name: str, damage: str) -> None:
    random.seed(3)
    lines = [
        f'{{"id": {n}, "prompt": "{random.random()}", "response_a": "b", "response_b": "c"}}\n' for n in range(50_000)
    ]
    rows = [f"{n},{random.random()},b,c\n" for n in range(50_000)]
    packed = gzip.compress(HEADER + "".join(rows).encode() if "csv" in name else "".join(lines).encode())
    half = len(packed) // 2
    (tmp_path / name).write_bytes(
        packed[:half] if damage == "cut short" else packed[:half] + b"x" * 9 + packed[half + 9 :]
    )
    with pytest.raises(
        RunError, match=r"is damaged after row \d+: its gzip stream is broken or truncated; fetch it again"
    ):
        list(read_rows(str(tmp_path / name)))


def test_damaged_page_of_parquet_stops_with_a_sentence(tmp_path: Path) -> None:
    texts = [str(n) * 50 for n in range(5000)]
    table = pa.table({"id": list(range(5000)), **dict.fromkeys(("prompt", "response_a", "response_b"), texts)})
    content = bytearray(parquet(table))
    content[len(content) // 2 : len(content) // 2 + 500] = b"\xff" * 500
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(RunError, match=r"a\.parquet is damaged after row \d+: .*; fetch it again"):
        list(read_rows(str(tmp_path / "a.parquet")))
