"""Probabilities of a shared encoder against transformers' own models and plain formulas, one row at a time."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModel

from lmsys_ray.data.conversations import decode_cell
from lmsys_ray.members.orders import both_orders
from lmsys_ray.members.protocol import CONVERSATIONS, Scores
from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder
from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from lmsys_ray.scoring.score_tables import score_table
from tests.members.lightgbm.texts import conversations
from tests.tiny_encoders import ARCHITECTURES, make_shared_encoder

TOLERANCE = 1e-5


def member(model: Path, **changes: Any) -> SharedEncoderSettings:
    values = {"model": str(model), "dtype": "float32", "max_length": 128, "device": "cpu", "threads": 1, **changes}
    return SharedEncoderSettings(kind="shared_encoder", **values)


def score(settings: SharedEncoderSettings, rows: pa.Table) -> Scores:
    return SharedEncoderScorer(settings).score(SharedEncoderEncoder(settings).encode(rows))


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def table(*rows: tuple[str, str, str]) -> pa.Table:
    columns = [list(range(len(rows))), [str(i) for i in range(len(rows))], *map(list, zip(*rows, strict=True))]
    return pa.table(columns, schema=CONVERSATIONS)


SHORT = table(
    ('["why is the sky blue?","and at night?"]', '["Air scatters light.","It is dark."]', '["No idea.",null]'),
    ("plain text", "An answer that is not a list of turns", "\u56e0\u4e3a\u5b83\u66f4\u5bb9\u6613\u8bfb\u3002"),
    ('[""]', '[""]', '["something"]'),
    ('["<|end|> spelled"]', '["<|pad|> is read as text"]', '["the same"]'),
    *((f'["question {n}"]', f'["{"word " * n}"]', f'["{"other " * (12 - n)}"]') for n in range(1, 12)),
)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_each_text_is_averaged_over_its_tokens(kind: str, tmp_path: Path) -> None:
    model = make_shared_encoder(tmp_path / "model", kind)
    encoder, head = AutoModel.from_pretrained(model).eval(), load_file(model / "head.safetensors")
    tokenizer, rows = Tokenizer.from_file(str(model / "tokenizer.json")), SHORT
    tokenizer.encode_special_tokens = True
    expected = []
    for row in rows.to_pylist():
        prompt, *responses = ("\n\n".join(decode_cell(row[c])) for c in ("prompt", "response_a", "response_b"))
        means = []
        for response in responses:
            ids = tokenizer.encode(f"Prompt: {prompt}\n\nResponse: {response}").ids
            assert len(ids) <= 128, "the test needs texts that are not cut"
            with torch.inference_mode():
                means.append(encoder(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy())
        expected.append(head["weight"] @ np.concatenate(means) + head["bias"])
    found = score(member(model), rows)
    np.testing.assert_allclose(found.probabilities, softmax(np.array(expected)), atol=TOLERANCE)
    logits = np.column_stack([found.raw[f"logit_{name}"] for name in ("a", "b", "tie")])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 1e-2


QUIRKS = table(
    ('["why\\/how?","more"]', '["null and nullable"]', '[null,"later"]'),
    ('["smile"]', '["so \\ud83d\\ude00"]', '["plain"]'),
    ('["\\ud83d\\ude00"]', '["one"]', '["caf\\u00e9"]'),
    (json.dumps(["a long prompt " * 30]), json.dumps(["never read"]), json.dumps(["neither is this"])),
)


def starter_texts(row: dict[str, str]) -> tuple[list[str], bool]:
    """Writes out what the starter does to a row: its two texts, and whether a field was blanked."""
    prompt = ast.literal_eval(row["prompt"])[0]
    a, b = (ast.literal_eval(row[side].replace("null", "''"))[0] for side in ("response_a", "response_b"))
    fields, failed = [], False
    for field in (prompt, a, b):
        try:
            fields.append(field.encode("utf-8").decode("utf-8"))
        except UnicodeEncodeError:
            fields.append("")
            failed = True
    return [f"Prompt: {fields[0]}\n\nResponse: {response}" for response in fields[1:]], failed


def as_keras_masks(encoder: Any) -> Any:
    """Lets padded slots keep their embeddings and see the real tokens, as KerasNLP does and DeBERTa here does not."""
    if encoder.config.model_type == "deberta-v2":
        embed = encoder.embeddings.forward
        encoder.embeddings.forward = lambda input_ids, mask=None, **others: embed(input_ids=input_ids, **others)
        encoder.encoder.get_attention_mask = lambda mask: mask[:, None, None, :]
    return encoder


@pytest.mark.parametrize("kind", ["deberta-v2", "bert", "electra"])
@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
def test_the_preset_computes_the_formula_of_the_starter(kind: str, tmp_path: Path) -> None:
    slots = 96
    model = make_shared_encoder(tmp_path / "model", kind)
    encoder, head = as_keras_masks(AutoModel.from_pretrained(model).eval()), load_file(model / "head.safetensors")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    expected, marked = [], []
    for row in QUIRKS.to_pylist():
        texts, failed = starter_texts(row)
        marked.append(failed)
        outputs = []
        for text in texts:
            ids = tokenizer.encode(text).ids[:slots]
            mask = [1] * len(ids) + [0] * (slots - len(ids))
            given = torch.tensor([ids + [1] * (slots - len(ids))]), torch.tensor([mask])
            with torch.inference_mode():
                outputs.append(encoder(input_ids=given[0], attention_mask=given[1]).last_hidden_state[0].numpy())
        both = np.concatenate(outputs, axis=-1)  # [slots, 2 dim]
        expected.append(softmax(head["weight"] @ both.mean(axis=0) + head["bias"]))
    found = score(member(model, preset="kerasnlp", max_length=slots), QUIRKS)
    np.testing.assert_allclose(found.probabilities, expected, atol=TOLERANCE)
    assert found.raw["blanked"].tolist() == marked == [False, True, True, False]
    right = score(member(model, max_length=slots), QUIRKS)
    assert np.abs(right.probabilities[0] - found.probabilities[0]).max() > 1e-3, "the preset changes nothing"
    assert "blanked" not in right.raw


def test_a_second_order_costs_no_second_pass(tmp_path: Path) -> None:
    model, rows = make_shared_encoder(tmp_path / "model"), conversations(9, seed=2)
    settings = member(model, swap=True)
    encoder, scorer = SharedEncoderEncoder(settings), SharedEncoderScorer(settings)
    once, twice = (scorer.score(encoder.encode(given)) for given in (rows, both_orders(rows)))
    assert twice.usage.slots == once.usage.slots
    assert twice.usage.tokens == 2 * once.usage.tokens
    assert twice.usage.shared == once.usage.shared + once.usage.tokens
    swapped = rows.select(["row", "id", "prompt", "response_b", "response_a"]).rename_columns(CONVERSATIONS.names)
    apart = scorer.score(encoder.encode(swapped)).probabilities
    kept = score_table(both_orders(rows)["row"], twice, swap=True)
    for place, name in enumerate(("a", "b", "tie")):
        np.testing.assert_allclose(kept[f"{name}_plain"], once.probabilities[:, place], atol=TOLERANCE)
        np.testing.assert_allclose(kept[f"{name}_swapped"], apart[:, (1, 0, 2)[place]], atol=TOLERANCE)


def test_a_response_survives_a_long_prompt(tmp_path: Path) -> None:
    model = make_shared_encoder(tmp_path / "model")
    rows = table(
        *((json.dumps(["word " * 500]), json.dumps([answer]), json.dumps(["same"])) for answer in ("yes", "no"))
    )
    balanced, right = (score(member(model, truncation=kind), rows).probabilities for kind in ("balanced", "right"))
    assert np.abs(balanced[0] - balanced[1]).max() > 1e-3
    np.testing.assert_allclose(right[0], right[1], atol=TOLERANCE)


def test_all_turns_are_read_or_those_that_are_chosen(tmp_path: Path) -> None:
    model = make_shared_encoder(tmp_path / "model")
    rows = table(('["one","two"]', '["three","four"]', '["five","six"]'), ('["one"]', '["three"]', '["five"]'))
    first, every = (score(member(model, turns=turns), rows).probabilities for turns in ("first", "all"))
    np.testing.assert_allclose(first[0], first[1], atol=TOLERANCE)
    assert np.abs(every[0] - every[1]).max() > 1e-3
