"""A model cut to its first blocks computes what transformers computes with as many, and a misfit is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.depth import is_behind
from lmsys_ray.members.llama.encode import LlamaEncoder
from lmsys_ray.members.llama.scorer import LlamaScorer
from tests.tiny_llama import make_adapter, make_model
from tests.training.test_train_lora_loop import conversations


def member(model: Path, **changes: object) -> LlamaSettings:
    return LlamaSettings(kind="llama", model=str(model), max_length=128, **changes)


@pytest.mark.parametrize("padding", ["none", "longest"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_first_blocks_score_as_a_model_of_as_many_does(tmp_path: Path, architecture: str, padding: str) -> None:
    model = make_model(tmp_path / "model", architecture, num_hidden_layers=5)
    cut = member(model, layers=2, padding=padding)
    encoded = LlamaEncoder(cut).encode(conversations(6)[0])
    scored = LlamaScorer(cut).score(encoded)
    plain = AutoModelForSequenceClassification.from_pretrained(model)
    plain.model.layers = plain.model.layers[:2]
    for place, ids in enumerate(encoded["input_ids"].to_pylist()):
        with torch.no_grad():
            hidden = plain.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[:, -1]
            expected = torch.softmax(plain.score(hidden), dim=-1)[0].numpy()
        np.testing.assert_allclose(scored[place], expected, atol=1e-6)
    whole = LlamaScorer(member(model, padding=padding)).score(encoded)
    assert np.abs(whole - scored).max() > 1e-3


def test_more_blocks_than_there_are_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(UsageError, match=r"layers: 3 exceeds the 2 blocks of .*; lower it"):
        LlamaScorer(member(model, layers=3))


def test_an_adapter_of_the_whole_model_does_not_fit_its_half(tmp_path: Path) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"adapter: .*layers\.1.* beside what its config says"):
        LlamaScorer(member(model, layers=1, adapter=str(adapter)))


@pytest.mark.parametrize(
    ("noted", "sentence"),
    [
        ({"layers": 1}, "was trained with layers = 1, this member has None; set layers to the former"),
        ({"text": "notebook"}, "was trained with text = 'notebook', this member has 'json'"),
        ({"template": "labelled"}, "was trained with template = 'labelled', this member has 'notebook'"),
        ({"truncation": "balanced"}, "was trained with truncation = 'balanced', this member has 'right'"),
    ],
)
def test_a_member_that_reads_rows_otherwise_than_its_adapter_learnt_is_refused(
    tmp_path: Path, noted: dict[str, object], sentence: str
) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    (adapter / "scoring.json").write_text(json.dumps({"max_length": 64, **noted}))
    with pytest.raises(UsageError) as error:
        LlamaScorer(member(model, adapter=str(adapter)))
    assert sentence in str(error.value)
    (adapter / "scoring.json").write_text(json.dumps({"max_length": 64}))
    LlamaScorer(member(model, adapter=str(adapter)))


@pytest.mark.parametrize(("content", "sentence"), [("{", "is no JSON"), ("[1]", "is no mapping of settings")])
def test_damaged_notes_beside_an_adapter_are_told(tmp_path: Path, content: str, sentence: str) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    (adapter / "scoring.json").write_text(content)
    with pytest.raises(UsageError, match=rf"adapter: scoring\.json of .* {sentence}"):
        LlamaScorer(member(model, adapter=str(adapter)))


def test_weights_of_blocks_behind_are_told_from_others() -> None:
    assert is_behind("model.layers.12.mlp.up_proj.weight", 12)
    assert not is_behind("model.layers.11.mlp.up_proj.weight", 12)
    assert not is_behind("model.norm.weight", 12)
    assert not is_behind("model.layers.12.mlp.up_proj.weight", None)
