"""Heads of all forms, of tokens and of encoders, against transformers and plain formulas, one row at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OlmoeConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.row_form import checked_runner
from lmsys_ray.checkpoints.wanted import HeadSetting, Wanted
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.tiny_llama import SIZES, make_model, make_tokenizer, save

TOLERANCE = 1e-5


def member(model: Path, **changes: Any) -> ClassifierSettings:
    return ClassifierSettings(
        kind="classifier", **{"model": str(model), "dtype": "float32", "max_length": 64, "device": "cpu", **changes}
    )


def ragged(rows: list[np.ndarray]) -> RaggedIds:
    return RaggedIds(np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])]))


def rows(seed: int = 0, lengths: tuple[int, ...] = (3, 50, 17, 64, 9, 33)) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    made = [generator.integers(3, 390, length).astype(np.int32) for length in lengths]
    made[2][:9] = made[1][:9]
    return made


def found(settings: ClassifierSettings, wanted: Wanted, given: list[np.ndarray]) -> np.ndarray:
    runner, _ = checked_runner(settings, wanted)
    ids = ragged(given)
    logits, _ = runner.logits(ids.flat, ids.starts)
    values: np.ndarray = logits[:, runner.classifier.columns].numpy()
    return values


def last_states(model: Path, given: list[np.ndarray]) -> torch.Tensor:
    """Returns the hidden state of each row's last token [rows, hidden]."""
    backbone = AutoModel.from_pretrained(model).eval()
    with torch.inference_mode():
        each = [backbone(torch.from_numpy(row[None].astype(np.int64))).last_hidden_state[0, -1] for row in given]
    return torch.stack(each)


def with_head(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """Saves a tiny Llama whose head consists of `tensors`."""
    make_model(folder)
    weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if "score" not in key}
    save_file({**weights, **tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **config}))
    return folder


def random_tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {name.replace("__", "."): torch.randn(shape) * 0.3 for name, shape in shapes.items()}


MLP = random_tensors(score__0__weight=(32, 32), score__0__bias=(32,), score__2__weight=(1, 32), score__2__bias=(1,))
GELU = random_tensors(score__1__weight=(16, 32), score__1__bias=(16,), score__4__weight=(3, 16), score__4__bias=(3,))
VALUE = random_tensors(v_head__summary__weight=(1, 32), v_head__summary__bias=(1,))
VALUE_MLP = random_tensors(
    **{"v_head__summary__0__weight": (8, 32), "v_head__summary__0__bias": (8,)},
    **{"v_head__summary__2__weight": (1, 8), "v_head__summary__2__bias": (1,)},
)
NAMED = random_tensors(critic__weight=(1, 32))

NARROW = {**MLP, "score.0.weight": MLP["score.0.weight"][:, :7].contiguous()}

Formula = Callable[[torch.Tensor], torch.Tensor]

HEADS: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], Wanted, Formula]] = {
    "mlp": (
        MLP,
        {"architectures": ["INFORMForSequenceClassification"]},
        Wanted.one_score(),
        lambda x: (
            (x @ MLP["score.0.weight"].T + MLP["score.0.bias"]).clamp(min=0) @ MLP["score.2.weight"].T
            + MLP["score.2.bias"]
        ),
    ),
    "gelu": (
        GELU,
        {},
        Wanted.three_labels(),
        lambda x: (
            nn.functional.gelu(x @ GELU["score.1.weight"].T + GELU["score.1.bias"]) @ GELU["score.4.weight"].T
            + GELU["score.4.bias"]
        ),
    ),
    "value head": (
        VALUE,
        {"architectures": ["LlamaForCausalLM"]},
        Wanted.one_score("value_head"),
        lambda x: x @ VALUE["v_head.summary.weight"].T + VALUE["v_head.summary.bias"],
    ),
    "value head of two layers": (
        VALUE_MLP,
        {"architectures": ["LlamaForCausalLM"]},
        Wanted.one_score(),
        lambda x: (
            (x @ VALUE_MLP["v_head.summary.0.weight"].T + VALUE_MLP["v_head.summary.0.bias"]).clamp(min=0)
            @ VALUE_MLP["v_head.summary.2.weight"].T
            + VALUE_MLP["v_head.summary.2.bias"]
        ),
    ),
    "value head of a name": (
        NAMED,
        {"value_head_prefix": "critic", "architectures": ["LlamaModel"]},
        Wanted.one_score(),
        lambda x: x @ NAMED["critic.weight"].T,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_compute_what_the_names_of_their_weights_say(name: str, tmp_path: Path) -> None:
    tensors, config, wanted, formula = HEADS[name]
    model = with_head(tmp_path / "model", tensors, **config)
    given = rows()
    expected = formula(last_states(model, given)).detach().numpy()
    np.testing.assert_allclose(found(member(model), wanted, given), expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("tensors", "wanted", "said"),
    [
        (MLP, Wanted.one_score("linear"), "head: linear, but the weights of .* hold a head of the form mlp"),
        ({}, Wanted.one_score("mlp"), "head: mlp, but the weights of .* hold no head"),
        ({}, Wanted.one_score(), "has no head .*, so its answers would be random"),
        (GELU, Wanted.one_score(), "has 3 outputs where one score is needed"),
        (MLP, Wanted.three_labels(), "has 1 outputs where a, b and tie are needed"),
        (random_tensors(regression_layer__weight=(19, 32)), Wanted.one_score(), "mixes several objectives"),
        (NARROW, Wanted.one_score(), "takes 7 numbers where the model has 32"),
    ],
)
def test_other_heads_are_refused(tensors: dict[str, torch.Tensor], wanted: Wanted, said: str, tmp_path: Path) -> None:
    model = with_head(tmp_path / "model", tensors)
    with pytest.raises(UsageError, match=said) as refused:
        load_classifier(member(model), wanted)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("head", "refused"), [("auto", True), ("linear", False)])
def test_custom_code_is_refused_unless_the_head_is_named(head: HeadSetting, refused: bool, tmp_path: Path) -> None:
    linear = random_tensors(score__weight=(1, 32))
    code = {"AutoModelForSequenceClassification": "modeling.Reward"}
    model = with_head(tmp_path / "model", linear, auto_map=code, architectures=["Reward"])
    if refused:
        with pytest.raises(UsageError, match=r"is computed by custom code .* say by the setting head"):
            load_classifier(member(model), Wanted.one_score(head))
        return
    given = rows()
    expected = last_states(model, given) @ linear["score.weight"].T
    np.testing.assert_allclose(found(member(model), Wanted.one_score(head), given), expected.numpy(), atol=TOLERANCE)


_SMALL = {"max_position_embeddings": 128, "tie_word_embeddings": False}
LANGUAGE_MODELS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**{**SIZES, **_SMALL}),
    "llama, tied": LlamaConfig(**{**SIZES, **_SMALL, "tie_word_embeddings": True}),
    "qwen2": Qwen2Config(**{**SIZES, **_SMALL}),
    "gemma2, capped": Gemma2Config(**{**SIZES, **_SMALL}, head_dim=8, final_logit_softcapping=2.0),
    "granite, scaled": GraniteConfig(**{**SIZES, **_SMALL}, logits_scaling=3.0),
    "cohere, scaled": CohereConfig(**{**SIZES, **_SMALL}, logit_scale=0.3),
    "gpt2": GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=2),
    "gpt_neox": GPTNeoXConfig(**{**SIZES, **_SMALL}),
    "phi, with a bias": PhiConfig(**{**SIZES, **_SMALL}),
    "olmoe": OlmoeConfig(**{**SIZES, **_SMALL}, num_experts=4, num_experts_per_tok=2),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_logits_of_tokens_are_those_of_the_language_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(LANGUAGE_MODELS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.ndim == 2 else parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    given, ids = rows(), (17, 330, 5)
    with torch.inference_mode():
        whole = [model(torch.from_numpy(row[None].astype(np.int64))).logits[0, -1] for row in given]
    expected = torch.stack(whole)[:, list(ids)].numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found(member(tmp_path), Wanted.logits_of(ids), given), expected, atol=TOLERANCE)


def test_a_classifier_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a classifier where a language model is needed"):
        load_classifier(member(make_model(tmp_path / "model")), Wanted.logits_of([3, 4]))


_ENCODER = {
    **{"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 80, "pad_token_id": 1, "num_labels": 3},
}
ENCODERS = {
    "bert": {"type_vocab_size": 2},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 82},
    "xlm-roberta": {"type_vocab_size": 1, "max_position_embeddings": 82},
    "electra": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
                   "share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0},
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 0, "sep_token_id": 2,
                   "bos_token_id": 0, "eos_token_id": 2},
}  # fmt: skip


def make_encoder(folder: Path, kind: str, **changes: Any) -> Any:
    torch.manual_seed(4)
    config = AutoConfig.for_model(kind, **{**_ENCODER, **ENCODERS[kind], **changes})
    return save(AutoModelForSequenceClassification.from_config(config), folder)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_compute_what_transformers_computes(kind: str, tmp_path: Path) -> None:
    model, given = make_encoder(tmp_path, kind), rows()
    with torch.inference_mode():
        expected = torch.cat([model(torch.from_numpy(row[None].astype(np.int64))).logits for row in given]).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-2
    np.testing.assert_allclose(found(member(tmp_path), Wanted.three_labels(), given), expected, atol=TOLERANCE)


def test_an_encoder_tells_the_texts_of_a_pair_apart(tmp_path: Path) -> None:
    model, given = make_encoder(tmp_path, "bert", num_labels=1), rows()
    types = [(np.arange(len(row)) >= len(row) // 3).astype(np.int32) for row in given]
    with torch.inference_mode():
        expected = [
            model(*(torch.from_numpy(each[None].astype(np.int64)) for each in (row, np.ones_like(row), kinds))).logits
            for row, kinds in zip(given, types, strict=True)
        ]
    runner, _ = checked_runner(member(tmp_path), Wanted.one_score())
    ids = ragged(given)
    logits, _ = runner.logits(ids.flat, ids.starts, np.concatenate(types))
    np.testing.assert_allclose(logits.numpy(), torch.cat(expected).numpy(), atol=TOLERANCE)
    alone, _ = runner.logits(ids.flat, ids.starts)
    assert np.abs(alone.numpy() - logits.numpy()).max() > 1e-3


@pytest.mark.parametrize(("kind", "most"), [("roberta", 80), ("bert", 80)])
def test_an_encoder_without_room_for_a_row_is_refused(kind: str, most: int, tmp_path: Path) -> None:
    make_encoder(tmp_path, kind)
    load_classifier(member(tmp_path, max_length=most), Wanted.three_labels())
    with pytest.raises(UsageError, match=f"exceeds the {most} positions"):
        load_classifier(member(tmp_path, max_length=most + 1), Wanted.three_labels())


def test_an_encoder_without_its_head_is_refused(tmp_path: Path) -> None:
    model = make_encoder(tmp_path / "whole", "deberta-v2")
    model.base_model.save_pretrained(tmp_path / "base")
    make_tokenizer(tmp_path / "base")
    with pytest.raises(UsageError, match=r"has no head \(classifier"):
        load_classifier(member(tmp_path / "base"), Wanted.three_labels())


def test_an_encoder_is_not_quantized(tmp_path: Path) -> None:
    make_encoder(tmp_path, "bert")
    with pytest.raises(UsageError, match="is an encoder, which is computed in 16 or 32 bits"):
        load_classifier(member(tmp_path, quantization="int8_dynamic"), Wanted.three_labels())
