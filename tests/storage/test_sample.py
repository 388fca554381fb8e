"""The packaged sample conversations hold the kinds of rows that real files hold, in the same written form."""

import csv
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from lmsys_ray.data.conversations import CELLS, decode_cell
from lmsys_ray.storage.packaged import locate

PATH = Path(locate("packaged:sample.csv"))
Conversation = dict[str, list[str | None]]


def rows() -> list[dict[str, str]]:
    with PATH.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def conversations() -> list[Conversation]:
    return [{name: json.loads(row[name]) for name in CELLS} for row in rows()]


def texts(names: tuple[str, ...] = CELLS) -> list[str]:
    return [turn for row in conversations() for name in names for turn in row[name] if turn is not None]


def answers(row: Conversation) -> tuple[list[str | None], list[str | None]]:
    return row["response_a"], row["response_b"]


def test_has_the_columns_of_the_competition() -> None:
    assert PATH.read_text(encoding="utf-8").splitlines()[0] == "id,prompt,response_a,response_b"
    assert len(rows()) == 40


def test_file_is_small_ascii_with_unix_line_ends() -> None:
    content = PATH.read_bytes()
    assert content.isascii(), "other characters, lone surrogates above all, stand as JSON escapes only"
    assert b"\r" not in content
    assert len(content) < 150_000


def test_ids_are_distinct_int64_in_no_order_and_one_is_no_double() -> None:
    written = [row["id"] for row in rows()]
    ids = [int(text) for text in written]
    assert [str(number) for number in ids] == written
    assert len(set(ids)) == len(ids)
    assert ids != sorted(ids)
    assert all(0 < number < 2**63 for number in ids)
    assert any(number > 2**53 and int(float(number)) != number for number in ids)


def test_cells_are_lists_of_turns_as_json_dumps_writes_them() -> None:
    for row in rows():
        for name in CELLS:
            turns = json.loads(row[name])
            assert isinstance(turns, list)
            assert all(turn is None or isinstance(turn, str) for turn in turns)
            assert json.dumps(turns, separators=(",", ":")) == row[name]


def test_the_three_cells_of_a_row_have_as_many_turns() -> None:
    for row in conversations():
        assert len({len(row[name]) for name in CELLS}) == 1
        assert all(row["prompt"]), "each turn has a prompt"


def test_every_cell_decodes() -> None:
    for row in rows():
        for name in CELLS:
            text = "".join(decode_cell(row[name]))
            assert text.encode("utf-8").decode("utf-8") == text


def test_has_conversations_of_two_to_five_turns() -> None:
    turns = [len(row["prompt"]) for row in conversations()]
    assert set(turns) == {1, 2, 3, 4, 5}
    assert sum(count > 1 for count in turns) >= 6


@pytest.mark.parametrize("script", ["LATIN", "CYRILLIC", "CJK", "HIRAGANA", "ARABIC", "DEVANAGARI", "HANGUL"])
def test_has_prompts_in_script(script: str) -> None:
    def letters(text: str) -> int:
        return sum(unicodedata.name(character, "").startswith(script) for character in text)

    assert any(letters(prompt) >= 8 for prompt in texts(("prompt",)))


@pytest.mark.parametrize(
    "phrase",
    [
        "¿Cómo se hace",
        "Schreib mir bitte",
        "Écris un quatrain",
        "Qual é a diferença",
        "Traduci in inglese",
        "Toplantı notlarını",
        "Giải thích ngắn gọn",
        "Podaj trzy polskie",
    ],
    ids=["Spanish", "German", "French", "Portuguese", "Italian", "Turkish", "Vietnamese", "Polish"],
)
def test_has_a_prompt_in_a_further_language_of_latin_script(phrase: str) -> None:
    assert any(phrase in prompt for prompt in texts(("prompt",)))


@pytest.mark.parametrize(
    "holds",
    [
        pytest.param(lambda row: answers(row) == ([None], [None]), id="two null answers"),
        pytest.param(lambda row: any(None in a and any(a) for a in answers(row)), id="one null among turns"),
        pytest.param(lambda row: [""] in answers(row), id="an empty answer"),
        pytest.param(
            lambda row: row["response_a"] == row["response_b"] and any(row["response_a"]), id="two identical answers"
        ),
    ],
)
def test_has_exactly_one_conversation_with(holds: Callable[[Conversation], bool]) -> None:
    assert sum(holds(row) for row in conversations()) == 1


def test_has_one_lone_surrogate_which_decodes_to_the_replacement_character() -> None:
    cells = [row[name] for row in rows() for name in CELLS]
    lone = [cell for cell in cells if re.search("[\ud800-\udfff]", "".join(turn or "" for turn in json.loads(cell)))]
    assert len(lone) == 1
    assert r"\ud83d" in lone[0]
    assert decode_cell(lone[0])[0].endswith("\ufffd")


def test_has_one_very_long_text_that_does_not_repeat_itself() -> None:
    long = [text for text in texts() if len(text) > 25_000]
    assert len(long) == 1
    paragraphs = long[0].split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))


@pytest.mark.parametrize(
    "fragment",
    [
        "```python\n",
        "```sql\n",
        "```javascript\n",
        "\n|---|",
        "\n- **",
        r"$\sqrt{2}$",
        "{prompt}",
        "<label for=",
        "😭",
        '"so-called"',
    ],
)
def test_has_text_with(fragment: str) -> None:
    assert any(fragment in text for text in texts())
