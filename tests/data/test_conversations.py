"""Raw cells to turns: whatever a cell holds, it is decoded or refused with a reason."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.data.conversations import CELLS, TYPED, BadCellError, CellForm, decode_cell, kept_cell, undecoded

# Plain text that begins like a list of turns and is none.
LIKE_LISTS = (
    "[] is an empty list",
    "[ ] buy milk",
    "[] == []",
    '["a"] and more',
    '["a","b"].forEach(f)',
    "['a','b'].forEach(f)",
    "[null pointer]",
    "[null, undefined]",
    "[None of the above]",
    "['a\nb']",
)
# What may have been a list of turns, and must not be scored as text unseen.
DAMAGED_LISTS = (
    '["first turn","sec',
    '["first turn",',
    '["first turn"',
    "[nul",
    "[null,nu",
    '["he said "no" to it"]',
    '["a" "b"]',
    '["a"]]',
    '["a"]",',
    '["a", nan]',
    "['first turn', 'sec",
    "['first turn', 'sec\\",
    "['first turn',",
    "['a', nan]",
    "['a', 'b' 'c']",
    "['a']]",
    "[None, No",
)


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
        ("['one', \"it's\", None]", ["one", "it's", ""]),
        ("['one' \"it's\"\n None]", ["one", "it's", ""]),
        ("[None]", [""]),
        (r"['\x00 \n \' \\ \u2028 \U0001f600 \ud83d']", ["\x00 \n ' \\ \u2028 \U0001f600 \ufffd"]),
        *((text, [text]) for text in LIKE_LISTS),
        ('{"a": 1}', ['{"a": 1}']),
        ('[{"role": "user", "content": "hi"}]', ["hi"]),
        (' [ {"content": "hi", "name": "x", "role": "User"},\n null,{"role":"human","content":null}]', ["hi", "", ""]),
        ('[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]', ["be brief", "hi"]),
        ('{"role": "assistant", "content": "\\ud83d"}', ["\ufffd"]),
        ('[{"from": "gpt", "value": "one"}, {"from": "gpt", "value": "two"}]', ["one", "two"]),
        ('[{"role":"user","content":[{"type":"text","text":"a"},"b",{"text":"c","image":null}]}]', ["a\nb\nc"]),
        ('[{"role":"user","content":[]}]', [""]),
        *(
            (text, [text])
            for text in (
                '[{"a": 1}]',
                '[{"a": 1}] is a list of dicts',
                '[{"content": "no role"}]',
                '[{"name": "Bob", "role": "admin"}]',
                '[{"name": "Bob", "role": "admin"}] as a table',
                '{"model": "m", "messages": [{"role": "user", "content": "hi"}]} fails, why?',
                '{"model": "m", "messages": [{"role": "user", "content": "hi"}]}',
                '{"role": "user"}',
                "{'a': 1}",
                "[{]",
                "[{}]",
            )
        ),
    ],
)
def test_cell_is_decoded(cell: str, turns: list[str]) -> None:
    assert decode_cell(cell) == turns


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('["open', "not valid JSON"),
        *((cell, "not valid JSON .*; plain text needs --set cells=text") for cell in DAMAGED_LISTS),
        ("[", "not valid JSON"),
        ('["a",["b"]]', "a list as turn 2"),
        ('["a",{"role":"user"}]', "an object as turn 2"),
        ('["a",' + "9" * 5000 + "]", "too long"),
        ('["a",' + "[" * 100_000, "nested too deeply"),
        ('[{"role": "user", "content": "x"}] and so on', "not valid JSON"),
        ('[{"role": "user", "content": "cut', "not valid JSON"),
        ('[{"id": 7, "content": "x", "role": "user"}, {"id": 8, "con', "not valid JSON"),
        ('{"role": "user", "content": "cut', "not valid JSON"),
        ("[{'role': 'user', 'content': 'printed by Python'}]", "not valid JSON"),
        (
            "[{'content': 'printed', 'role': 'assistant'}\n {'content': 'by NumPy', 'role': 'user'}]",
            "not valid JSON",
        ),
        ('[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]', "messages of both user and assistant"),
        ('[{"role":"tool","content":"a"}]', "'tool' as role of turn 1; accepted: user"),
        ('[{"role":"some running text, which is not shown","content":"a"}]', "another name as role of turn 1"),
        ('[{"role":"user","content":"a"},"b"]', "a text as turn 2 where a message is expected"),
        ('[{"role":"user","text":"a"}]', "an object without content as turn 1"),
        ('[{"a":1},{"role":"user","content":"a"}]', "an object without content as turn 1"),
        ('[{"role":"user","content":5}]', "a number as content of turn 1"),
        ('[{"role":"user","content":{"text":"a"}}]', "an object as content of turn 1"),
        ('[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]', "a part of type 'image_url' in turn 1"),
        ('[{"role":"user","content":[{"type":"text"}]}]', "a part without text in turn 1"),
        ('[{"role":"user","content":[1]}]', "a number as a part of turn 1"),
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


def test_json_form_takes_messages_that_name_no_role() -> None:
    assert decode_cell('[{"content": "a"}, {"content": "b"}]', "json") == ["a", "b"]
    with pytest.raises(BadCellError, match="no list of turns"):
        decode_cell('{"a": 1}', "json")


def test_text_form_never_reads_json() -> None:
    assert decode_cell('["a"]', "text") == ['["a"]']
    assert decode_cell('[{"role": "user", "content": "a"}]', "text") == ['[{"role": "user", "content": "a"}]']


@pytest.mark.parametrize("form", ["auto", "json"])
def test_messages_are_kept_as_the_list_of_their_texts(form: CellForm) -> None:
    cell = '[{"role": "user", "content": "é \\ud83d"}, null]'
    assert kept_cell("prompt", cell, form).text == '["\\u00e9 \\ud83d",null]'
    assert kept_cell("prompt", ' ["é", 1]', form).text == ' ["é", 1]'


def test_messages_must_be_by_whom_the_column_is() -> None:
    cells = {role: json.dumps([{"role": role, "content": "a"}]) for role in ("user", "assistant", "system")}
    for column, accepted in (("prompt", {"user", "system"}), ("response_a", {"assistant"})):
        for role, cell in cells.items():
            if role in accepted:
                assert kept_cell(column, cell, "auto").text == '["a"]'
            else:
                with pytest.raises(BadCellError, match=f"holds messages of {role}; give those of the"):
                    kept_cell(column, cell, "auto")


def test_any_plain_text_is_kept_as_it_is_read() -> None:
    for cell in (TYPED, f'{TYPED}["a"]', '["a"]', ""):
        assert decode_cell(kept_cell("prompt", cell, "text").text, "text") == [cell]


def test_those_who_read_cells_undecoded_see_them_as_in_a_csv() -> None:
    cells = pa.table({name: [f'{TYPED}["a","b"]', "plain"] for name in CELLS})
    assert undecoded(cells).to_pydict() == {name: ['["a","b"]', "plain"] for name in CELLS}


@given(st.lists(st.one_of(st.none(), st.text())), st.booleans())
def test_lists_of_turns_come_back(turns: list[str | None], ascii_only: bool) -> None:
    cell = json.dumps(turns, ensure_ascii=ascii_only)
    assert decode_cell(cell, "json") == [turn or "" for turn in turns]


@pytest.mark.parametrize("form", ["auto", "json"])
@given(st.lists(st.none() | st.text(st.sampled_from("'\"\\\n\t\x00\x85\u2028\u00e9\U0001f600 ,[]aN")) | st.text()))
def test_lists_as_pandas_writes_them_are_read_whole(form: CellForm, turns: list[str | None]) -> None:
    """Whichever quotes and commas a list came to have: no row of a file is read otherwise than its neighbours."""
    expected = [turn or "" for turn in turns]
    for cell in (str(turns), str(np.array(turns, dtype=object))):
        assert decode_cell(cell, form) == expected
        assert json.loads(kept_cell("prompt", cell, form).text) == turns


@given(st.text(st.characters()))
def test_any_text_is_decoded_or_refused(cell: str) -> None:
    try:
        turns = decode_cell(cell)
    except BadCellError:
        return
    assert "".join(turns).encode("utf-8").decode("utf-8") == "".join(turns)
