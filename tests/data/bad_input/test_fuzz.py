"""Any text at all, read in every way there is: the fast ways, the careful ones and a plain reference agree."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmsys_ray.data.conversations import BadCellError, decode_cell, kept_cell
from lmsys_ray.data.readers import BEGINNING, ReadPosition, csv_blocks, read_rows, windows
from tests.data.bad_input import reference
from tests.data.bad_input.outcomes import Row

HEADER = b"id,prompt,response_a,response_b\n"

# Text in which the marks of CSV and JSON are frequent, with whole records among it.
PIECES = st.sampled_from(
    [
        *(
            b'"',
            b'""',
            b",",
            b"\n",
            b"\r\n",
            b"\r",
            b" ",
            b"[",
            b"]",
            b'[""',
            b'""]',
            b'"[""x""]"',
            b"null",
            b"\\",
            b"\\n",
        ),
        *(b"\\u12e9", b"\\ud83d", b"1", b"id7", b"{", b":", b"-2.5", b"true", b"\xc3\xa9", b"\xff", b"\xed\xa0\xbd"),
        *(b"\x00", b"\xef\xbb\xbf", b"\xe2\x80\x83", b"\xc2\x85", b"\x0b", b"\x1c"),
        *(
            b'[{""role"":""user"",""content"":""x""}]',
            b'{""role"":',
            b"'role':",
            b"'",
            b"['",
            b"None",
            b"\\x00",
            b'""user""',
            b'""content"":',
            b"}",
        ),
        *(b"'", b"['", b"None", b"\\x00", b"\\'"),
        *(b"2,a,b,c\n", b'3,"[""y""]","a\nb","c,d"\n'),
    ]
)
# Lines of which rows are damaged, or swallowed by a quote, or made up by what stands within one.
LINES = st.sampled_from(
    [
        *(b"2,a,b,c\n", b'3,"a",b,c\n', b'"10",a,b,c\n', b'11,"two\nlines",b,c\n', b"12,a\rb,c,d\n", b"13,a\n", b"\n"),
        *(
            b'4,"open,b,c\n',
            b'5,p,a,27"\n',
            b'6,p,"Hello,b\n',
            b'6,p,a,"Hello\n',
            b'7,"line one\n',
            b'8,"multi\nline",p,"q\n',
        ),
        *(b'say "hi" there",a,b\n', b'9,say "hi" there",a,b\n', b'x = "\n', b'",a,b\n', b"    return a, b, c, d\n"),
        *(b"1, 2, 3, 4\n", b"14,1, 2,3\n", b"more text\r\n", b'end",a,b\n', b'"', b"k1,a,b,c\n", b",a,b,c\n"),
    ]
)
PART = st.sampled_from(["a", None, {"type": "text", "text": "b"}, {"text": "c"}, {"type": "image"}, 1])
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "from", "value", "id"]), st.none()).flatmap(
    lambda keys: st.fixed_dictionaries(
        {
            key: st.sampled_from(["user", "assistant", "system", "admin", None])
            if key in ("role", "from")
            else st.text(max_size=3) | st.none() | st.integers() | st.lists(PART, max_size=2)
            for key in keys
        }
    )
)
TEXT = st.one_of(
    st.lists(PIECES, max_size=40).map(b"".join),
    st.lists(LINES, max_size=12).map(b"".join),
    st.lists(LINES | PIECES, max_size=20).map(b"".join),
    st.binary(max_size=60),
)
CELL = st.one_of(
    st.lists(PIECES, max_size=12).map(lambda pieces: b"".join(pieces).decode("utf-8", "replace").replace('""', '"')),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=6).map(
        json.dumps
    ),
    st.text(max_size=20),
    st.lists(st.none() | MESSAGE | st.text(max_size=2), max_size=3).map(json.dumps),
    st.builds(lambda message, tail: json.dumps(message) + tail, MESSAGE, st.sampled_from(["", " ", "x", "]"])),
    st.builds(lambda turns, end: str(turns)[:end], st.lists(st.none() | st.text(max_size=3)), st.integers(-9, -1)),
    st.builds(
        lambda turns, tail: str(turns) + tail, st.lists(st.none() | st.text(max_size=3)), st.text("]'; x", max_size=2)
    ),
    st.builds(lambda message, end: f"[{json.dumps(message)}]"[:-end], MESSAGE, st.integers(1, 30)),
)
FORM = st.sampled_from(["auto", "json", "text"])
FEW = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=10_000)


def found(path: Path, start: ReadPosition = BEGINNING) -> list[reference.Read]:
    rows = [row for table in read_rows(str(path), start=start) for row in table.to_pylist()]
    assert [row["number"] for row in rows] == list(range(start.row, start.row + len(rows)))
    cells = [[row["prompt"], row["response_a"], row["response_b"]] for row in rows]
    assert all((row["reason"] is None) == (None not in texts) for row, texts in zip(rows, cells, strict=True))
    inner = [row["warning"] and row["warning"].partition(" within")[0] for row in rows]
    return [
        reference.Read(Row(row["id"], row["reason"]), None if row["reason"] else texts, told)
        for row, texts, told in zip(rows, cells, inner, strict=True)
    ]


def agrees_with_the_reference(path: Path, text: bytes) -> None:
    path.write_bytes(HEADER + text)
    read, expected = found(path), reference.rows_of(text)
    # The reference leaves the wording of a cell's fault to the decoder and tells its column alone.
    shown = [
        (Row(row.id, told.reason if told.reason and (row.reason or "").startswith(told.reason) else row.reason), *rest)
        for (row, *rest), (told, *_) in zip(read, expected, strict=True)
    ]
    assert shown == expected


def agrees_however_it_is_cut(path: Path, text: bytes, block: int, careful: int) -> None:
    """Small blocks make every record a boundary of some kind; a row is reached from its own start as from the first."""
    path.write_bytes(HEADER + text)
    expected = found(path)
    with pytest.MonkeyPatch.context() as patch:
        for module in (windows, csv_blocks):
            patch.setattr(module, "BLOCK", block)
        patch.setattr(csv_blocks, "_CAREFUL_BYTES", careful)
        assert found(path) == expected
        tables = list(read_rows(str(path)))
        for table in tables[:: len(tables) // 4 + 1]:
            row = table.slice(table.num_rows - 1).to_pylist()[0]
            start = ReadPosition(row["start_at"], row["start_row"])
            assert found(path, start) == expected[start.row - 1 :]


def fast_and_careful_ways_accept_the_same_cells(path: Path, cell: str, form: str) -> None:
    """The vectorised patterns, the decoder and the reference."""
    cell = cell.encode("utf-8", "replace").decode()
    path.write_text(json.dumps({"id": 1, "prompt": cell, "response_a": '["a"]', "response_b": "[]"}) + "\n")
    row = next(read_rows(str(path), form)).to_pylist()[0]
    try:
        kept, reason = kept_cell("prompt", cell, form).text, None
    except BadCellError as error:
        kept, reason = None, f"prompt {error}"
    assert (row["prompt"], row["reason"]) == (kept, reason)
    assert reference.decodes(cell, form) == (reason is None)
    if kept is not None:
        assert decode_cell(kept, form) == ([cell] if form == "text" else decode_cell(cell, form))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "in"


@pytest.fixture(scope="module")
def csv_path(path: Path) -> Path:
    return path.with_suffix(".csv")


@pytest.fixture(scope="module")
def json_path(path: Path) -> Path:
    return path.with_suffix(".jsonl")


@FEW
@given(TEXT)
def test_csv_agrees_with_the_reference(csv_path: Path, text: bytes) -> None:
    agrees_with_the_reference(csv_path, text)


@FEW
@given(TEXT, st.integers(1, 40), st.integers(1, 30))
def test_csv_does_not_depend_on_blocks(csv_path: Path, text: bytes, block: int, careful: int) -> None:
    agrees_however_it_is_cut(csv_path, text, block, careful)


@FEW
@given(CELL, FORM)
def test_cells_agree_with_the_decoder(json_path: Path, cell: str, form: str) -> None:
    fast_and_careful_ways_accept_the_same_cells(json_path, cell, form)


@pytest.mark.slow
@pytest.mark.soak
@MANY
@given(TEXT)
def test_csv_agrees_with_the_reference_at_length(csv_path: Path, text: bytes) -> None:
    agrees_with_the_reference(csv_path, text)


@pytest.mark.slow
@pytest.mark.soak
@MANY
@given(TEXT, st.integers(1, 40), st.integers(1, 30))
def test_csv_does_not_depend_on_blocks_at_length(csv_path: Path, text: bytes, block: int, careful: int) -> None:
    agrees_however_it_is_cut(csv_path, text, block, careful)


@pytest.mark.slow
@pytest.mark.soak
@MANY
@given(CELL, FORM)
def test_cells_agree_with_the_decoder_at_length(json_path: Path, cell: str, form: str) -> None:
    fast_and_careful_ways_accept_the_same_cells(json_path, cell, form)
