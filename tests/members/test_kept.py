"""What is kept of each cell: the words that a model can read must be those that the columns count."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from lmsys_ray.checkpoints.sources import read_tokenizer
from lmsys_ray.members.orders import both_orders
from lmsys_ray.members.protocol import CONVERSATIONS, KEPT, Scores
from lmsys_ray.members.registry import kind_named, validated
from lmsys_ray.scoring.score_tables import score_table, with_failed, with_kept_shares
from tests.members.samples import SAMPLES

WORDS = {"prompt": 150, "a": 700, "b": 900}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "right": ("classifier", {"truncation": "right", "max_length": 600}),
    "right as text": ("classifier", {"truncation": "right", "max_length": 600, "special_tokens": "text"}),
    "balanced": ("classifier", {"truncation": "balanced", "max_length": 600}),
    "conversations": (
        "classifier",
        {"truncation": "balanced", "max_length": 600, "template": "{conversation_a} ### {conversation_b}"},
    ),
    "pair": ("classifier", {"template": ["{prompt}", "{response_a} ### {response_b}"], "max_length": 600}),
    "reward": ("reward", {}),
    "pair of reward": ("reward", {"input": "pair"}),
    "judge": ("judge", {}),
    "shared encoder": ("shared_encoder", {"truncation": "balanced"}),
    "starter": ("shared_encoder", {"preset": "kerasnlp"}),
}


@pytest.fixture(params=WAYS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Tokenizer, Mapping[str, Any]]:
    """An encoder, its tokenizer, and the settings of its member."""
    kind, changes = WAYS[request.param]
    sample = SAMPLES[kind]
    values = {"kind": kind, **sample.make(tmp_path), **sample.settings, **changes}
    if "pair" in request.param:
        _join_pairs(Path(values["model"]))
        values.pop("adapter")
    settings = validated(values)
    tokenizer = read_tokenizer(values["model"], values.get("adapter"), False).tokenizer
    return kind_named(kind).encoder(settings, "auto"), tokenizer, values


def _join_pairs(model: Path) -> None:
    """Lets the tokenizer join two texts, as those of BERT do."""
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    piece = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [piece, texts[0]],
        "pair": [piece, texts[0], piece, texts[1], piece],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(tokenizer))


def cell(name: str, words: int) -> str:
    return json.dumps([" ".join(f"{name}{number:03}" for number in range(words))])


def rows(*sizes: Mapping[str, int]) -> pa.Table:
    cells = [[cell(name, words[name]) for words in sizes] for name in WORDS]
    numbers = range(len(sizes))
    return pa.Table.from_arrays(
        [pa.array(numbers, pa.int64()), pa.array(map(str, numbers)), *(pa.array(c, pa.large_string()) for c in cells)],
        schema=CONVERSATIONS,
    )


def words_read(texts: list[str], name: str, words: int) -> float:
    """Returns the share of a cell's numbered words that occur in texts, on average."""
    return float(np.mean([sum(f" {name}{n:03} " in f" {text} " for n in range(words)) / words for text in texts]))


def test_shares_are_those_of_the_words_in_the_tokens(made: tuple[Any, Tokenizer, Mapping[str, Any]]) -> None:
    encoder, tokenizer, _ = made
    table = encoder.encode(rows(WORDS, dict.fromkeys(WORDS, 3)))
    sequences = [name for name in table.column_names if name.startswith("input_ids")]
    texts = [tokenizer.decode(table[name][0].as_py(), skip_special_tokens=False) for name in sequences]
    kept = {name: table[f"kept_{name}"].to_pylist() for name in WORDS}
    assert all(shares[1] == 1 for shares in kept.values()), "a short row is read whole"
    assert min(shares[0] for shares in kept.values()) < 0.9, "nothing is cut, so that nothing is tested"
    for name, words in WORDS.items():
        holds = [text for text in texts if name == "prompt" or f"{name}000" in text] or texts
        assert kept[name][0] == pytest.approx(words_read(holds, name, words), abs=4 / words), name


def test_the_shares_of_both_orders_are_averaged_for_each_response(
    made: tuple[Any, Tokenizer, Mapping[str, Any]], tmp_path: Path
) -> None:
    encoder, _, values = made
    if values["kind"] == "shared_encoder" or values["kind"] == "reward":
        pytest.skip("the order does not matter to a kind that reads each response by itself")
    one = rows(WORDS)
    plain, swapped = encoder.encode(both_orders(one)).slice(0, 1), encoder.encode(both_orders(one)).slice(1, 1)
    scores = score_table(pa.chunked_array([[0, 0]]), Scores(np.full((2, 3), 1 / 3, np.float32)), swap=True)
    found = with_kept_shares(scores, pa.concat_tables([plain, swapped]), 2)
    assert found.column_names[-3:] == KEPT.names
    failed = with_failed(found, {7: "too long"})
    pq.write_table(failed, tmp_path / "scores.parquet")
    assert pq.read_table(tmp_path / "scores.parquet")["kept_a"].to_pylist() == [found["kept_a"][0].as_py(), None]
    for name, other in (("prompt", "prompt"), ("a", "b"), ("b", "a")):
        mean = (plain[f"kept_{name}"][0].as_py() + swapped[f"kept_{other}"][0].as_py()) / 2
        assert found[f"kept_{name}"].to_pylist() == pytest.approx([mean])
