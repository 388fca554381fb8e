"""Chat messages in every format and type: the turns of the same conversation as a plain list of texts."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from lmsys_ray.data.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.data.readers import read_rows
from lmsys_ray.members.lightgbm.notebook import NotebookFeatures
from lmsys_ray.members.lightgbm.vectorizer import Vectorizer, VectorizerSettings
from lmsys_ray.prompts.cell_text import cell_text

TURN = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CONVERSATION = st.fixed_dictionaries({cell: st.lists(TURN, min_size=1, max_size=3) for cell in CELLS})
ROLES = {"prompt": "user", "response_a": "assistant", "response_b": "assistant"}
SHARE_GPT = {"prompt": "human", "response_a": "gpt", "response_b": "gpt"}

PART = pa.struct({"type": pa.string(), "text": pa.string(), "image": pa.binary()})
MESSAGE = pa.struct({"content": pa.string(), "role": pa.string()})
WORDS = pa.dictionary(pa.int32(), pa.string())


def messages(cell: str, turns: list[str | None]) -> list[dict[str, Any]]:
    return [{"role": ROLES[cell], "content": turn} for turn in turns]


def in_parts(cell: str, turns: list[str | None]) -> list[dict[str, Any]]:
    return [{"content": [{"type": "text", "text": turn or ""}]} for turn in turns]


def share_gpt(cell: str, turns: list[str | None]) -> list[dict[str, Any]]:
    return [{"id": place, "value": turn, "from": SHARE_GPT[cell]} for place, turn in enumerate(turns)]


def plain(cell: str, turns: list[str | None]) -> list[str | None]:
    return turns


def single(cell: str, turns: list[str | None]) -> dict[str, Any]:
    return messages(cell, turns)[0]


def columns_of(rows: list[dict[str, Any]], make: Any) -> dict[str, list[Any]]:
    return {"id": list(range(len(rows))), **{cell: [make(cell, row[cell]) for row in rows] for cell in CELLS}}


def write_csv(path: Path, columns: dict[str, list[Any]], ascii_only: bool) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(columns)
        for number, *cells in zip(*columns.values(), strict=True):
            writer.writerow([number, *(json.dumps(cell, ensure_ascii=ascii_only) for cell in cells)])
    return path


def write_json_lines(path: Path, columns: dict[str, list[Any]]) -> Path:
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines))
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], kind: pa.DataType) -> Path:
    types = {"id": pa.int64(), **dict.fromkeys(CELLS, kind)}
    pq.write_table(pa.table([pa.array(columns[name], types[name]) for name in types], list(types)), path)
    return path


PARQUET = {
    "list of text": (pa.list_(pa.string()), plain),
    "large list of large text": (pa.large_list(pa.large_string()), plain),
    "list of bytes": (pa.list_(pa.binary()), lambda cell, turns: [turn and turn.encode() for turn in turns]),
    "list of text by dictionary": (pa.list_(WORDS), plain),
    "list of messages": (pa.list_(MESSAGE), messages),
    "large list of messages": (pa.large_list(MESSAGE), messages),
    "messages by dictionary": (pa.list_(pa.struct({"role": WORDS, "content": WORDS})), messages),
    "messages of parts": (pa.list_(pa.struct({"content": pa.list_(PART)})), in_parts),
    "share gpt": (
        pa.list_(pa.struct({"from": pa.string(), "value": pa.large_string(), "id": pa.int64()})),
        share_gpt,
    ),
}


def read(path: Path, form: CellForm) -> Iterator[dict[str, list[str]]]:
    for row in (row for table in read_rows(str(path), form) for row in table.to_pylist()):
        assert row["reason"] is None
        yield {cell: decode_cell(row[cell], form) for cell in CELLS}


@settings(deadline=None, max_examples=20)
@given(st.lists(CONVERSATION, min_size=1, max_size=4), st.sampled_from(get_args(CellForm)), st.booleans())
def test_turns_are_the_same_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], form: CellForm, ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("messages")
    expected = [{cell: [turn or "" for turn in row[cell]] for cell in CELLS} for row in rows]
    for make in (messages, share_gpt, in_parts, plain):
        columns = columns_of(rows, make)
        assert list(read(write_json_lines(folder / "a.jsonl", columns), form)) == expected
        # A CSV does not say which cells are lists, so that only messages with their roles are told from text.
        if form == "json" or (form == "auto" and make is not in_parts):
            assert list(read(write_csv(folder / "a.csv", columns, ascii_only), form)) == expected
    for kind, make in PARQUET.values():
        assert list(read(write_parquet(folder / "a.parquet", columns_of(rows, make), kind), form)) == expected


@settings(deadline=None, max_examples=10)
@given(st.lists(CONVERSATION, min_size=1, max_size=4))
def test_a_message_alone_is_one_turn(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("messages")
    expected = [{cell: [row[cell][0] or ""] for cell in CELLS} for row in rows]
    columns = columns_of(rows, single)
    assert list(read(write_csv(folder / "a.csv", columns, True), "auto")) == expected
    assert list(read(write_json_lines(folder / "a.jsonl", columns), "text")) == expected
    assert list(read(write_parquet(folder / "a.parquet", columns, MESSAGE), "text")) == expected


@pytest.mark.parametrize("form", ["auto", "json"])
def test_shards_hold_messages_as_the_competition_holds_turns(tmp_path: Path, form: CellForm) -> None:
    rows = [{cell: ["one", "zwö"] for cell in CELLS}]
    for path in (
        write_csv(tmp_path / "a.csv", columns_of(rows, share_gpt), False),
        write_json_lines(tmp_path / "a.jsonl", columns_of(rows, share_gpt)),
        write_parquet(tmp_path / "a.parquet", columns_of(rows, messages), pa.list_(MESSAGE)),
    ):
        row = next(read_rows(str(path), form)).to_pylist()[0]
        assert [row[cell] for cell in CELLS] == ['["one","zw\\u00f6"]'] * 3


def test_members_that_read_cells_undecoded_see_typed_lists_as_in_a_csv(tmp_path: Path) -> None:
    columns = columns_of([{"prompt": ["one"], "response_a": ["two", "three"], "response_b": ["a, b"]}], plain)
    tables = [
        next(read_rows(str(write_json_lines(tmp_path / "a.jsonl", columns)), form)).select(CELLS)
        for form in ("auto", "text")
    ]
    words, characters = CountVectorizer().fit(["two three"]), CountVectorizer(analyzer="char").fit(['[",]two \ufdd0'])
    features = NotebookFeatures(*(Vectorizer(VectorizerSettings.of(counts)) for counts in (words, characters)))
    matrices = [features.matrix(table).toarray() for table in tables]
    assert (matrices[0] == matrices[1]).all()
    texts = [[cell_text(table[cell][0].as_py(), "notebook") for cell in CELLS] for table in tables]
    assert texts == [["one", "two three", "a, b"]] * 2
