"""Scores of reward models against transformers, one sequence at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lmsys_ray.data.conversations import decode_cell
from lmsys_ray.members.protocol import Scores
from lmsys_ray.members.registry import kind_of, validated
from lmsys_ray.prompts.turns import exchanges
from tests.checkpoints.test_heads import make_encoder
from tests.members.lightgbm.texts import conversations
from tests.members.samples import CHAT
from tests.tiny_llama import SIZES, save

_SIZES = {**SIZES, "num_labels": 1, "max_position_embeddings": 512}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "qwen2": Qwen2Config(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES, head_dim=8),
    "gemma2": Gemma2Config(**_SIZES, head_dim=8),
    "mistral": MistralConfig(**_SIZES),
    "gpt_neox": GPTNeoXConfig(**_SIZES),
}


def make(folder: Path, config: PreTrainedConfig) -> Any:
    torch.manual_seed(7)
    return save(AutoModelForSequenceClassification.from_config(config), folder)


def scored(model: Path, rows: pa.Table, **changes: Any) -> Scores:
    values = {"kind": "reward", "model": str(model), "dtype": "float32", "device": "cpu", "max_length": 512, **changes}
    settings = validated(values)
    kind = kind_of(settings)
    encoder = kind.encoder(settings, "auto")
    assert encoder
    scores: Scores = kind.scorer(settings, "auto").score(encoder.encode(rows))
    return scores


def turns(cell: str) -> list[str]:
    return decode_cell(cell)


def fitting(count: int) -> pa.Table:
    """Returns rows that are not cut, some of several turns."""
    rows = conversations(40, seed=3)
    short = [
        sum(map(len, row.values())) < 500 for row in rows.select(["prompt", "response_a", "response_b"]).to_pylist()
    ]
    return rows.filter(pa.array(short)).slice(0, count)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model, rows = make(tmp_path, CONFIGS[name]), fitting(6)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    scores = scored(tmp_path, rows, chat_template=CHAT)
    assert scores.probabilities is None
    for side in "ab":
        for place, row in enumerate(rows.to_pylist()):
            messages = []
            for asked, answered in exchanges(turns(row["prompt"]), turns(row[f"response_{side}"])):
                messages += {"role": "user", "content": asked}, {"role": "assistant", "content": answered}
            ids = tokenizer.apply_chat_template(messages, chat_template=CHAT, return_dict=False)
            with torch.inference_mode():
                expected = model(torch.tensor([ids])).logits.item()
            np.testing.assert_allclose(scores.raw[f"score_{side}"][place], expected, atol=1e-5)
    assert np.ptp(scores.raw["score_a"]) > 0.01


def test_a_sign_turns_scores_around(tmp_path: Path) -> None:
    make(tmp_path, CONFIGS["llama"])
    plain, turned = (scored(tmp_path, fitting(4), chat_template=CHAT, sign=sign) for sign in (1, -1))
    np.testing.assert_array_equal(plain.raw["score_a"], -turned.raw["score_a"])


def test_an_encoder_reads_prompt_and_response_as_a_pair(tmp_path: Path) -> None:
    model = make_encoder(tmp_path, "bert", num_labels=1, max_position_embeddings=512)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    special = {"<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]}}
    begin, a, b = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, "A", "B"
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": a, "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": a, "type_id": 0}}, begin, {"Sequence": {"id": b, "type_id": 1}}],
        "special_tokens": special,
    }
    file.write_text(json.dumps(content))
    rows, tokenizer = fitting(6), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    scores = scored(tmp_path, rows)
    for place, row in enumerate(rows.to_pylist()):
        texts = ("\n\n".join(turns(row["prompt"])), "\n\n".join(turns(row["response_b"])))
        given = tokenizer([texts], return_tensors="pt", return_token_type_ids=True)
        with torch.inference_mode():
            expected = model(given["input_ids"], given["attention_mask"], given["token_type_ids"]).logits.item()
        np.testing.assert_allclose(scores.raw["score_b"][place], expected, atol=1e-5)


def test_a_common_prompt_is_computed_once(tmp_path: Path) -> None:
    make(tmp_path, CONFIGS["llama"])
    prompt = json.dumps(["Why is the sky blue? " * 20])
    rows = pa.table([[0], ["i"], [prompt], ['["Air scatters it."]'], ['["No idea at all."]']], schema=fitting(1).schema)
    usage = scored(tmp_path, rows, chat_template=CHAT).usage
    assert usage.shared > 0.4 * usage.tokens
    assert usage.slots == usage.tokens - usage.shared
