"""The files of docs/examples: each is recognised, and the side that people chose is the one that is labelled."""

import json
from pathlib import Path

import pytest

from lmsys_ray import CLASSES
from lmsys_ray.data.readers import ReadPosition, head, read_rows
from lmsys_ray.data.schemas.recognise import ANYTHING, Wishes, recognise

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

FILES = {
    "contest.csv": ("contest", 3),
    "wsdm.parquet": ("wsdm", 2),
    "arena_33k.jsonl": ("arena", 3),
    "arena_140k.parquet": ("arena", 3),
    "mt_bench.jsonl": ("mt_bench", 3),
    "trl.jsonl": ("trl", 2),
    "trl_conversational.jsonl": ("trl", 2),
    "trl_implicit.parquet": ("trl", 2),
    "ultrafeedback.parquet": ("ultrafeedback", 3),
    "helpsteer2.jsonl": ("helpsteer", 3),
    "helpsteer3.jsonl": ("helpsteer", 3),
    "hh_rlhf.jsonl": ("hh_rlhf", 2),
    "rewardbench.parquet": ("rewardbench", 2),
    "rewardbench2.jsonl": ("rewardbench", 5),
    "safe_rlhf.jsonl": ("safe_rlhf", 2),
    "alpaca_eval.json": ("alpaca_eval", 3),
    "nectar.jsonl": ("ranked", 3),
    "llama_factory.json": ("llama_factory", 2),
    "llama_factory_sharegpt.json": ("llama_factory", 1),
}
NUMBERS = {"Seven.", "Eleven."}


def rows_of(name: str, wishes: Wishes = ANYTHING) -> list[dict]:
    path = str(EXAMPLES / name)
    reading = recognise(head(path), wishes).reading
    tables = read_rows(path, reading=reading, name=name)
    return [row for table in tables for row in table.to_pylist()]


def turns(cell: str) -> list[str]:
    return json.loads(cell) if cell.startswith("[") else [cell]


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_recognised_and_its_labels_point_at_the_better_answer(name: str) -> None:
    schema, count = FILES[name]
    assert recognise(head(str(EXAMPLES / name))).reading.schema == schema
    rows = rows_of(name)
    assert len(rows) == count == len({row["id"] for row in rows})
    for row in rows:
        assert row["reason"] is None
        assert row["warning"] is None
        a, b = (turns(row[column])[-1] for column in ("response_a", "response_b"))
        label = CLASSES[row["label"]]
        if {a, b} <= NUMBERS or (name == "nectar.jsonl" and a[:3] == b[:3] == "Yes"):
            assert label == ("tie" if {a, b} <= NUMBERS else "a" if a == "Yes, it is less dense." else "b")
        else:
            assert {a[:2], b[:2]} == {"Ye", "No"}
            assert label == ("a" if a.startswith("Yes") else "b")
        if row.get("model_a"):
            better = row["model_a"] if label == "a" else row["model_b"]
            assert label == "tie" or better in ("kite", "human", "fern")
        cells = [turns(row[column]) for column in ("prompt", "response_a", "response_b")]
        assert len({len(texts) for texts in cells}) == 1
        assert all("Human:" not in text for texts in cells for text in texts)


def test_what_travels_with_the_rows() -> None:
    assert [row["language"] for row in rows_of("wsdm.parquet")] == ["English", "English"]
    assert [row["source"] for row in rows_of("rewardbench.parquet")] == ["invented-easy", "invented-hard"]
    assert [row["source"] for row in rows_of("helpsteer3.jsonl")] == ["general", "stem", "stem"]
    assert {row["source"] for row in rows_of("nectar.jsonl")} == {"invented"}


def test_a_judgment_of_the_first_turn_is_of_the_first_turn() -> None:
    first, second, _ = rows_of("mt_bench.jsonl")
    assert turns(first["prompt"]) == ["Does ice float on water?"]
    assert turns(first["response_a"]) == ["Yes, it is less dense."]
    assert turns(second["response_b"]) == ["Yes, it is less dense.", "Yes, there too, though only just."]
    assert [first["id"], second["id"]] == ["81:kite:moss:author_1:1", "81:moss:kite:author_1:2"]


def test_ids_are_of_the_file_its_rows_or_its_texts() -> None:
    assert [row["id"] for row in rows_of("trl.jsonl")] == ["trl.jsonl:1", "trl.jsonl:2"]
    assert [row["id"] for row in rows_of("rewardbench2.jsonl")][3:] == ["ref:3:0-0", "ref:3:1-0"]
    by_content = [row["id"] for row in rows_of("trl.jsonl", Wishes(id="hash"))]
    assert len(set(by_content)) == 2
    assert all(len(identity) == 24 for identity in by_content)
    assert by_content == [row["id"] for row in rows_of("trl.jsonl", Wishes(id="hash"))]
    assert rows_of("contest.csv", Wishes(id="row"))[0]["id"] == "contest.csv:1"


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [("all", ["0-2", "0-1", "2-1"]), ("adjacent", ["0-2", "2-1"]), ("best_worst", ["0-1"])],
)
def test_pairs_of_ranked_responses(tmp_path: Path, pairs: str, expected: list[str]) -> None:
    record = json.loads((EXAMPLES / "nectar.jsonl").read_text())
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "n", **record}) + "\n")
    path = str(tmp_path / "in.jsonl")
    reading = recognise(head(path), Wishes(pairs=pairs)).reading
    ids = [row["id"] for table in read_rows(path, reading=reading) for row in table.to_pylist()]
    assert ids == [f"n:{part}" for part in expected]


def test_the_other_label_of_safe_rlhf() -> None:
    better = [row["label"] for row in rows_of("safe_rlhf.jsonl")]
    safer = rows_of("safe_rlhf.jsonl", Wishes(columns={"better_response_id": "safer_response_id"}))
    assert [row["label"] for row in safer] == [1 - label for label in better]


@pytest.mark.parametrize("name", FILES)
def test_reading_may_begin_at_any_row(name: str) -> None:
    path = str(EXAMPLES / name)
    reading = recognise(head(path)).reading
    rows = [row for table in read_rows(path, reading=reading, name="x") for row in table.to_pylist()]
    for row in rows:
        start = (row["start_at"], row["start_row"])
        later = read_rows(path, reading=reading, name="x", start=ReadPosition(*start))
        found = [other for table in later for other in table.to_pylist()]
        assert found == rows[row["start_row"] - 1 :]
