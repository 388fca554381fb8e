"""Which schema is taken, what is told of it, and what is refused."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.readers import head, read_rows
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.data.schemas.recognise import ANYTHING, Recognised, Wishes, recognise
from lmsys_ray.errors import UsageError


def recognised(tmp_path: Path, record: dict, wishes: Wishes = ANYTHING) -> Recognised:
    (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
    return recognise(head(str(tmp_path / "in.jsonl")), wishes)


def rows(tmp_path: Path, *records: dict, wishes: Wishes = ANYTHING) -> list[dict]:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    reading = recognise(head(str(path)), wishes).reading
    return [row for table in read_rows(str(path), reading=reading, name="f") for row in table.to_pylist()]


PAIR = {"id": 1, "prompt": "p", "response_a": "a", "response_b": "b"}


def test_the_line_names_schema_and_columns(tmp_path: Path) -> None:
    assert recognised(tmp_path, PAIR).sentences == ["input: the contest's pairs (prompt, response_a, response_b)"]
    [line] = recognised(tmp_path, {**PAIR, "winner": "tie"}).sentences
    assert line == (
        "input: pairs of the WSDM contest (prompt, response_a, response_b, winner); contest fits too, wsdm was taken "
        "for its winner"
    )


def test_a_schema_may_be_asked_for(tmp_path: Path) -> None:
    record = {"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 1.0, "score_rejected": 1.0}
    assert recognised(tmp_path, record).reading.schema == "ultrafeedback"
    assert recognised(tmp_path, record, Wishes("trl")).reading.schema == "trl"
    with pytest.raises(UsageError, match="has no column response_a, response_b, which schema = contest needs; it has"):
        recognised(tmp_path, record, Wishes("contest"))


def test_columns_may_be_named(tmp_path: Path) -> None:
    record = {"key": 7, "question": "p", "answer_1": "x", "answer_2": ["y"], "id": "not this"}
    names = {"id": "key", "prompt": "question", "response_a": "answer_1", "response_b": "answer_2"}
    wishes = Wishes(columns=names)
    assert recognised(tmp_path, record, wishes).sentences == [
        "input: the contest's pairs (prompt from question, response_a from answer_1, response_b from answer_2)"
    ]
    [row] = rows(tmp_path, record, wishes=wishes)
    found = [row[name] for name in ("id", "prompt", "response_a", "response_b")]
    assert found == ["7", "p", "x", '["y"]']
    with pytest.raises(UsageError, match=r"columns names questions, but .*in.jsonl has no such column; it has key, q"):
        recognised(tmp_path, record, Wishes(columns={"prompt": "questions"}))


def test_an_unknown_shape_is_told_with_the_nearest_schemas(tmp_path: Path) -> None:
    expected = (
        r"in.jsonl is of no known schema; it has prompt, response_a, other \(nearest: contest lacks response_b; "
        r".*; wsdm lacks response_b, winner\); name its columns, for example with --set columns.prompt=NAME"
    )
    with pytest.raises(UsageError, match=expected):
        recognised(tmp_path, {"prompt": "p", "response_a": "a", "other": 1})


def test_without_ids(tmp_path: Path) -> None:
    record = {name: value for name, value in PAIR.items() if name != "id"}
    found = recognised(tmp_path, record)
    assert found.reading.id == "row"
    assert found.sentences[1] == (
        "input: no column holds ids, so FILE:ROW is the id of a row (--set id=hash: its content)"
    )
    assert [row["id"] for row in rows(tmp_path, record, record)] == ["f:1", "f:2"]
    same = [row["id"] for row in rows(tmp_path, record, record, {**record, "prompt": "q"}, wishes=Wishes(id="hash"))]
    assert same[0] == same[1] != same[2]
    with pytest.raises(UsageError, match=r"has no column id; name one with --set columns\.id=NAME, or set id to row"):
        recognised(tmp_path, record, Wishes(id="column"))


def test_a_reading_survives_the_manifest() -> None:
    full = Reading("ranked", (("prompt", "question"),), "hash", "adjacent", ("label", "tags"))
    for reading in (full, Reading()):
        assert Reading.from_dict(json.loads(json.dumps(reading.as_dict()))) == reading
    assert Reading().as_dict() == {}


def test_sides_are_dealt_evenly_by_id_and_labels_follow(tmp_path: Path) -> None:
    records = [{"id": n, "prompt": "p", "chosen": f"good {n}", "rejected": "bad"} for n in range(4000)]
    found = rows(tmp_path, *records)
    for row in found:
        assert row["label"] == (0 if row["response_a"].startswith('["good') else 1)
    assert 1900 < sum(row["label"] for row in found) < 2100
    assert rows(tmp_path, *records[::-1])[::-1] == [
        {**row, "number": other["number"]} | {name: other[name] for name in ("start_at", "start_row")}
        for row, other in zip(found, rows(tmp_path, *records[::-1])[::-1], strict=True)
    ]


def test_labels_that_name_no_winner_are_warned_of(tmp_path: Path) -> None:
    one_hot = ("winner_model_a", "winner_model_b", "winner_tie")
    values = [(1, 0, 0), (0, 0, 1), (1, 1, 0), (None, None, None), ("0.0", "1.0", "0"), (0.5, 0.5, 0)]
    found = rows(tmp_path, *({**PAIR, "id": n, **dict(zip(one_hot, v, strict=True))} for n, v in enumerate(values)))
    assert [row["label"] for row in found] == [0, 2, None, None, 1, None]
    assert [row["warning"] is not None for row in found] == [False, False, True, False, False, True]
    assert (
        found[2]["warning"]
        == "winner_model_a, winner_model_b, winner_tie: 1, 1, 0 names no winner, so the row has no label"
    )
    found = rows(tmp_path, *({**PAIR, "id": n, "winner": v} for n, v in enumerate(["model_b", "Tie", "", None, "x"])))
    assert [row["label"] for row in found] == [1, 2, None, None, None]
    assert [row["warning"] is not None for row in found] == [False] * 4 + [True]


def test_tags_and_sources(tmp_path: Path) -> None:
    found = rows(
        tmp_path, *({**PAIR, "id": n, "tags": tags} for n, tags in enumerate([["x", "y"], "z", None, '["q"]']))
    )
    assert [row["tags"] for row in found] == [["x", "y"], ["z"], None, ["q"]]


def test_pairs_whose_prompt_has_another_name_are_no_pairs_without_prompt(tmp_path: Path) -> None:
    pair = {"chosen": "It floats.", "rejected": "Sinks."}
    [row] = rows(tmp_path, {"id": 1, "question": "Does ice float?", "system": "Be brief.", **pair})
    assert row["prompt"] == '["Be brief.\\n\\nDoes ice float?"]'
    with pytest.raises(UsageError, match=r"is of no known schema; .*trl has no prompt, or other values"):
        rows(tmp_path, {"id": 1, "frage": "Schwimmt Eis?", **pair})
    [row] = rows(tmp_path, {"id": 1, "frage": "Schwimmt Eis?", **pair}, wishes=Wishes(columns={"prompt": "frage"}))
    assert row["prompt"] == '["Schwimmt Eis?"]'


def test_a_common_beginning_is_the_prompt_and_ends_between_words(tmp_path: Path) -> None:
    pair = {"chosen": "Q: does ice float? A: it floats", "rejected": "Q: does ice float? A: its weight sinks it"}
    [row] = rows(tmp_path, {"id": 4, **pair})
    sides = {row["response_a"], row["response_b"]}
    assert (row["prompt"], sides) == ('["Q: does ice float? A:"]', {'["it floats"]', '["its weight sinks it"]'})


def test_turns_within_the_prompts_of_helpsteer2(tmp_path: Path) -> None:
    prompt = "Does ice float?\n<extra_id_1>Assistant\nYes.\n<extra_id_1>User\nWhy?"
    sides = {"response_1": "Air.", "response_2": "It is lighter.", "preference_strength": 1}
    [row] = rows(tmp_path, {"prompt": prompt, **sides})
    assert row["prompt"] == '["Does ice float?","Why?"]'
    assert (row["response_a"], row["response_b"]) == ('["Yes.","Air."]', '["Yes.","It is lighter."]')
    assert row["label"] == 1


@pytest.mark.parametrize("write", [json.dumps, str])
def test_conversations_may_be_texts(tmp_path: Path, write: Callable[[list], str]) -> None:
    asked = {"role": "user", "content": "it's"}
    sides = {f"conversation_{side}": write([asked, {"role": "assistant", "content": side}]) for side in "ab"}
    [row] = rows(tmp_path, {"id": 1, "winner": "model_b", **sides})
    assert [row[name] for name in ("prompt", "response_a", "response_b", "label")] == ['["it\'s"]', '["a"]', '["b"]', 1]


def test_an_answer_that_is_json_stays_text(tmp_path: Path) -> None:
    answers = {"chosen": '["a", "b"]', "rejected": '{"answer": 1}'}
    [row] = rows(tmp_path, {"id": 2, "prompt": "[1, 2]", **answers})
    found = {json.loads(row[name])[0] for name in ("response_a", "response_b")}
    assert (json.loads(row["prompt"]), found) == (["[1, 2]"], set(answers.values()))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": None, "response_a": "a", "response_b": "b"}, "prompt is missing"),
        (
            {"conversation_a": [{"role": "user", "content": "x"}], "conversation_b": "text"},
            "conversation_b is text where",
        ),
        ({"prompt": "p", "chosen": [{"role": "nurse", "content": "x"}], "rejected": []}, "chosen has 'nurse' as role"),
        ({"prompt": "p", "chosen": "x", "rejected": [{"role": "assistant", "content": "y"}]}, "are text and messages"),
        ({"prompt": "p", "answers": [{"answer": "x", "rank": 1}]}, "has 1 responses where two or more"),
        (
            {"conversation_a": [{"role": "user", "content": [{"type": "image", "image": "x"}]}], "conversation_b": []},
            "conversation_a has a part of type 'image' in turn 1; text alone can be scored",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_one_reject(tmp_path: Path, record: dict, reason: str) -> None:
    [row] = rows(tmp_path, {"id": 9, **record})
    assert row["id"] == "9"
    assert reason in row["reason"]
    assert row["prompt"] is row["response_a"] is row["response_b"] is None


def test_columns_that_travel_never_stop_a_file(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,prompt,response_a,response_b,source,model_a,model_a\n1,p,a,b,s,x,y\n")
    reading = recognise(head(str(path))).reading
    [row] = next(read_rows(str(path), reading=reading)).to_pylist()
    assert (row["source"], row["model_a"]) == ("s", None)
    odd = {"source": [{"name": "x"}], "language": [datetime(2026, 1, 2)], "tags": [[{"a": 1}]], "winner": [True]}
    columns = {name: [text] for name, text in zip(("id", "prompt", "response_a", "response_b"), "1pab", strict=True)}
    pq.write_table(pa.table({**columns, **odd}), tmp_path / "in.parquet")
    path = tmp_path / "in.parquet"
    reading = recognise(head(str(path))).reading
    [row] = next(read_rows(str(path), reading=reading)).to_pylist()
    assert row["reason"] is None
    assert row["label"] is None
    assert "True" in row["warning"]
