"""Raw cells to turns: whatever a cell holds, it is decoded or refused with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.conversations import BadCellError, decode_cell


@pytest.mark.parametrize(
    ("cell", "turns"),
    [
        ('["one","two"]', ["one", "two"]),
        (' [ "one" ] ', ["one"]),
        ("[null]", [""]),
        ('["a",null,"b"]', ["a", "", "b"]),
        ("[]", []),
        ('["\\ud83d half a pair"]', ["\ufffd half a pair"]),
        ('["\\ud83d\\ude00"]', ["\U0001f600"]),
        ('["real\nnewline and \x00"]', ["real\nnewline and \x00"]),
        ('["n",1,true,2.5]', ["n", "1", "true", "2.5"]),
        ("plain text", ["plain text"]),
        ("", [""]),
        ("[Verse 1] la la", ["[Verse 1] la la"]),
        ("[1, 2, 3]", ["[1, 2, 3]"]),
        ('{"a": 1}', ['{"a": 1}']),
    ],
)
def test_cell_is_decoded(cell: str, turns: list[str]) -> None:
    assert decode_cell(cell) == turns


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('["open', "not valid JSON"),
        ('["a"] and more', "not valid JSON"),
        ("[", "not valid JSON"),
        ('["a",["b"]]', "a list as turn 2"),
        ('["a",{"role":"user"}]', "an object as turn 2"),
        ('["a",' + "9" * 5000 + "]", "too long"),
        ('["a",' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_cell_is_refused_with_its_reason(cell: str, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        decode_cell(cell)


def test_json_form_refuses_what_auto_takes_for_text() -> None:
    with pytest.raises(BadCellError, match="no list of turns"):
        decode_cell('"hello"', "json")
    with pytest.raises(BadCellError, match="not valid JSON"):
        decode_cell("hello", "json")


def test_text_form_never_reads_json() -> None:
    assert decode_cell('["a"]', "text") == ['["a"]']


@given(st.lists(st.one_of(st.none(), st.text())), st.booleans())
def test_lists_of_turns_come_back(turns: list[str | None], ascii_only: bool) -> None:
    cell = json.dumps(turns, ensure_ascii=ascii_only)
    assert decode_cell(cell, "json") == [turn or "" for turn in turns]


@given(st.text(st.characters()))
def test_any_text_is_decoded_or_refused(cell: str) -> None:
    try:
        turns = decode_cell(cell)
    except BadCellError:
        return
    assert "".join(turns).encode("utf-8").decode("utf-8") == "".join(turns)
