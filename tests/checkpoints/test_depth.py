"""A model cut to its first blocks computes what transformers computes with as many, and a misfit is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
)

from lmsys_ray.checkpoints.depth import is_dropped_block
from lmsys_ray.checkpoints.loading import load_model
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.members.classifier.training.test_loop import conversations
from tests.tiny_llama import SIZES, make_adapter, make_model, make_tokenizer


def member(model: Path, **changes: object) -> ClassifierSettings:
    return ClassifierSettings(kind="llama", model=str(model), max_length=128, **changes)


@pytest.mark.parametrize("padding", ["none", "longest"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_first_blocks_score_as_a_model_of_as_many_does(tmp_path: Path, architecture: str, padding: str) -> None:
    model = make_model(tmp_path / "model", architecture, num_hidden_layers=5)
    cut = member(model, layers=2, padding=padding)
    encoded = ClassifierEncoder(cut).encode(conversations(6)[0])
    scored = ClassifierScorer(cut).score(encoded).probabilities
    plain = AutoModelForSequenceClassification.from_pretrained(model)
    plain.model.layers = plain.model.layers[:2]
    for place, ids in enumerate(encoded["input_ids"].to_pylist()):
        with torch.no_grad():
            hidden = plain.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[:, -1]
            expected = torch.softmax(plain.score(hidden), dim=-1)[0].numpy()
        np.testing.assert_allclose(scored[place], expected, atol=1e-6)
    whole = ClassifierScorer(member(model, padding=padding)).score(encoded).probabilities
    assert np.abs(whole - scored).max() > 1e-3


def test_more_blocks_than_there_are_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    with pytest.raises(UsageError, match=r"layers: 3 exceeds the 2 blocks of .*; lower it"):
        ClassifierScorer(member(model, layers=3))


def test_an_adapter_of_the_whole_model_does_not_fit_its_half(tmp_path: Path) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"adapter: .*layers\.1.* beside what its config says"):
        ClassifierScorer(member(model, layers=1, adapter=str(adapter)))


@pytest.mark.parametrize(
    ("noted", "sentence"),
    [
        ({"layers": 1}, "was trained with layers = 1, this member has None; set layers as in training"),
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
        ClassifierScorer(member(model, adapter=str(adapter)))
    assert sentence in str(error.value)
    (adapter / "scoring.json").write_text(json.dumps({"max_length": 64}))
    ClassifierScorer(member(model, adapter=str(adapter)))


@pytest.mark.parametrize(("content", "sentence"), [("{", "is not JSON"), ("[1]", "is not a mapping of settings")])
def test_damaged_notes_beside_an_adapter_are_told(tmp_path: Path, content: str, sentence: str) -> None:
    model, adapter = make_model(tmp_path / "model"), make_adapter(tmp_path / "adapter")
    (adapter / "scoring.json").write_text(content)
    with pytest.raises(UsageError, match=rf"adapter: scoring\.json of .* {sentence}"):
        ClassifierScorer(member(model, adapter=str(adapter)))


def test_weights_of_blocks_behind_are_told_from_others() -> None:
    assert is_dropped_block("model.layers.12.mlp.up_proj.weight", 12)
    assert not is_dropped_block("model.layers.11.mlp.up_proj.weight", 12)
    assert not is_dropped_block("model.norm.weight", 12)
    assert not is_dropped_block("model.layers.12.mlp.up_proj.weight", None)
    for name in ("transformer.h.{}.attn", "model.decoder.layers.{}.fc1", "transformer.blocks.{}.ffn", "h.{}.ln_1"):
        assert is_dropped_block(f"{name.format(1)}.weight", 1)
        assert not is_dropped_block(f"{name.format(0)}.weight", 1)


DECODERS: list[tuple[type[PreTrainedConfig], dict[str, object]]] = [
    (GPT2Config, {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 256}),
    (GPTJConfig, {"n_layer": 3, "n_embd": 32, "n_head": 4, "rotary_dim": 4, "n_positions": 256}),
    (GPTNeoConfig, {"num_layers": 4, "hidden_size": 32, "num_heads": 4, "attention_types": [[["global", "local"], 2]]}),
    (GPTNeoXConfig, {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}),
    (BloomConfig, {"n_layer": 3, "hidden_size": 32, "n_head": 4}),
    (FalconConfig, {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4}),
    (MptConfig, {"n_layers": 3, "d_model": 32, "n_heads": 4, "max_seq_len": 256}),
    (
        OPTConfig,
        {"num_hidden_layers": 3, "hidden_size": 32, "ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    ),
    (Gemma2Config, {**SIZES, "num_hidden_layers": 3, "head_dim": 8}),
]


@pytest.mark.parametrize(("kind", "sizes"), DECODERS)
def test_decoders_that_name_their_blocks_otherwise_are_cut(
    tmp_path: Path, kind: type[PreTrainedConfig], sizes: dict[str, object]
) -> None:
    torch.manual_seed(0)
    named = {"vocab_size": 400, "num_labels": 3, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    whole = AutoModelForSequenceClassification.from_config(kind(**{**sizes, **named})).eval()
    whole.save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    settings = member(tmp_path, layers=2, padding="longest")
    cut = load_model(settings, Wanted.three_labels()).model
    blocks = next(part for part in whole.modules() if isinstance(part, torch.nn.ModuleList) and len(part) > 2)
    del blocks[2:]
    ids = torch.randint(3, 400, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(cut(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match=r"^layers: 9 exceeds the [34] blocks"):
        load_model(member(tmp_path, layers=9), Wanted.three_labels())
