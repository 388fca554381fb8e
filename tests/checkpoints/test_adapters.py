"""Adapters give what plain PEFT gives, row by row, whatever they were trained as; what PEFT itself loses is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForSequenceClassification

from lmsys_ray.checkpoints.adapter_files import embedding_rows
from lmsys_ray.checkpoints.loading import load_model
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.errors import UsageError
from tests import tiny_llama
from tests.checkpoints.adapter_reference import (
    PLAIN,
    ROWS,
    by_peft,
    by_transformers,
    by_us,
    change_config,
    probabilities,
    refused,
    saved,
    settings_of,
)

SUPPORTED: dict[str, dict[str, Any]] = {
    "plain": {},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 6}, "alpha_pattern": {"v_proj": 3}},
    "dora with a rank pattern": {"use_dora": True, "rank_pattern": {"q_proj": 2}},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "lora_bias": {"lora_bias": True},
    "bias all": {"bias": "all"},
    "layers_to_transform": {"layers_to_transform": [1]},
    "layers_to_transform, a number": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "target_modules, a pattern": {"target_modules": r".*\.(q|k)_proj$"},
    "target_modules, all": {"target_modules": "all-linear"},
    "target_modules, none": {"target_modules": None},
    "exclude_modules": {"target_modules": "all-linear", "exclude_modules": ["k_proj"]},
    "target the head": {"target_modules": ["q_proj", "score"]},
    "target embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "target embeddings by dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "target_parameters": {
        **{"target_modules": ["q_proj"], "target_parameters": ["mlp.down_proj.weight"], "lora_dropout": 0.0}
    },
    "modules_to_save, embeddings": {"modules_to_save": ["embed_tokens"]},
    "modules_to_save, norms": {"modules_to_save": ["norm", "input_layernorm"]},
    "modules_to_save, a projection": {"modules_to_save": ["k_proj"]},
    "trainable_token_indices": {"trainable_token_indices": [5, 6, 100]},
    "trainable_token_indices by name": {"trainable_token_indices": {"embed_tokens": [5, 6, 100]}},
    "ensure_weight_tying": {"ensure_weight_tying": True, "modules_to_save": ["embed_tokens"]},
    **{f"init {way}": {"init_lora_weights": way} for way in (False, "gaussian", "orthogonal", "eva", "mica")},
    **{f"init {way}": {"init_lora_weights": way} for way in ("pissa", "olora")},
    "kasa_config": {"kasa_config": KasaConfig()},
    "monteclora_config": {"monteclora_config": MontecloraConfig()},
    "velora_config": {"velora_config": VeloraConfig(num_groups=8)},
    "use_bdlora": {
        "use_bdlora": BdLoraConfig(
            target_modules_bd_a=["down_proj"], target_modules_bd_b=["q_proj", "v_proj"], nblocks=2
        )
    },
}


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny 3-label Qwen3-MoE, whose experts lie in one parameter."""
    directory = tmp_path_factory.mktemp("moe")
    torch.manual_seed(0)
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    model = Qwen3MoeForSequenceClassification(Qwen3MoeConfig(**tiny_llama.SIZES, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(directory)
    tiny_llama.make_tokenizer(directory)
    return str(directory)


@pytest.mark.parametrize("changes", SUPPORTED.values(), ids=SUPPORTED)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_gives_what_peft_gives(model: str, copied: Path, changes: dict[str, Any]) -> None:
    expected = probabilities(saved(by_transformers(model), copied, **changes))
    assert np.abs(expected - probabilities(by_transformers(model))).max() > 0.005
    scored = by_us(model, copied)
    np.testing.assert_allclose(scored, by_peft(by_transformers(model), copied), atol=1e-5)
    np.testing.assert_allclose(scored, expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True}], ids=str)
def test_biases_are_loaded(qwen: str, copied: Path, changes: dict[str, Any]) -> None:
    expected = probabilities(saved(by_transformers(qwen), copied, **changes))
    np.testing.assert_allclose(by_us(qwen, copied), by_peft(by_transformers(qwen), copied), atol=1e-5)
    np.testing.assert_allclose(by_us(qwen, copied), expected, atol=1e-5)


def test_adapters_of_experts_are_merged(moe: str, copied: Path) -> None:
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    saved(by_transformers(moe), copied, target_modules=["q_proj"], target_parameters=targets, lora_dropout=0.0)
    np.testing.assert_allclose(by_us(moe, copied), by_peft(by_transformers(moe), copied), atol=1e-5)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"init_lora_weights": "olora"},
        {"lora_bias": True},
        {"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["norm"]},
        {"trainable_token_indices": [5, 6, 100]},
    ],
    ids=str,
)
def test_beside_quantized_weights_it_gives_what_peft_gives(
    model: str, copied: Path, quantization: str, changes: dict[str, Any]
) -> None:
    expected = probabilities(saved(by_transformers(model, quantization), copied, **changes))
    scored = by_us(model, copied, quantization=quantization)
    np.testing.assert_allclose(scored, by_peft(by_transformers(model, quantization), copied), atol=1e-5)
    np.testing.assert_allclose(scored, expected, atol=1e-5)


def test_dora_beside_nf4_gives_what_peft_gives(qwen: str, copied: Path) -> None:
    expected = probabilities(saved(by_transformers(qwen, "nf4"), copied, use_dora=True))
    np.testing.assert_allclose(by_us(qwen, copied, quantization="nf4"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("quantization", "changes", "said"),
    [
        ("int8", {"use_dora": True}, "use_dora"),
        ("nf4", {"init_lora_weights": "pissa"}, "init_lora_weights = pissa"),
        ("nf4", {"modules_to_save": ["k_proj"]}, r"modules_to_save = model.layers.0.self_attn.k_proj"),
        ("int8", {"kasa_config": KasaConfig()}, "kasa_config"),
        ("nf4", {"velora_config": VeloraConfig(num_groups=8)}, "velora_config"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_peft_does_not_compute_beside_quantized_weights_is_refused(
    model: str, copied: Path, quantization: str, changes: dict[str, Any], said: str
) -> None:
    saved(by_transformers(model), copied, **changes)
    sentence = refused(lambda: by_us(model, copied, quantization=quantization))
    assert f"{said} of {copied} does not go with weights quantized by a library" in sentence
    assert "set quantization to none" in sentence


@pytest.mark.parametrize("way", ["orthogonal", "mica"])
def test_a_start_that_left_the_base_alone_goes_with_quantized_weights(model: str, copied: Path, way: str) -> None:
    saved(by_transformers(model), copied, init_lora_weights=way)
    plain = copied.with_name("plain")
    shutil.copytree(copied, plain)
    change_config(plain, init_lora_weights=True)
    expected = by_peft(by_transformers(model, "nf4"), plain)
    np.testing.assert_allclose(by_us(model, copied, quantization="nf4"), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_merging_rounds_once(model: str, copied: Path, dtype: str) -> None:
    saved(by_transformers(model), copied)
    merged = load_model(settings_of(model, copied, dtype=dtype), Wanted.three_labels()).model.state_dict()
    weights = load_file(copied / "adapter_model.safetensors")
    for key, weight in by_transformers(model, dtype=getattr(torch, dtype)).state_dict().items():
        a, b = (weights.get(f"base_model.model.{key[:-7]}.lora_{factor}.weight") for factor in "AB")
        if a is not None and b is not None:
            exact = weight.float() + 2.0 * (b @ a)
            assert torch.equal(merged[key], exact.to(weight.dtype))


def test_a_random_start_is_refused_and_taken_once_merged(model: str, tmp_path: Path) -> None:
    wrapped = saved(by_transformers(model), tmp_path / "adapter", init_lora_weights="pissa_niter_4")
    expected = probabilities(wrapped)
    sentence = refused(lambda: by_us(model, tmp_path / "adapter"))
    assert "init_lora_weights = 'pissa_niter_4'" in sentence
    assert "merge_and_unload" in sentence
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    tiny_llama.make_tokenizer(tmp_path / "merged")
    np.testing.assert_allclose(by_us(tmp_path / "merged", None), expected, atol=1e-5)


def test_what_matters_in_training_only_changes_nothing(model: str, adapter: str, copied: Path) -> None:
    shutil.copytree(adapter, copied)
    changes = {"inference_mode": False, "lora_dropout": 0.9, "auto_mapping": {"unsloth_fixed": True}, "revision": "v2"}
    names = {"base_model_name_or_path": "/no/such/base", "peft_version": "9.0", "eva_config": {"rho": 2.0}}
    change_config(copied, **changes, **names)
    np.testing.assert_array_equal(by_us(model, copied), by_us(model, Path(adapter)))


def test_a_start_from_a_zero_a_that_was_never_trained_is_refused(model: str, copied: Path) -> None:
    config = peft.LoraConfig(**PLAIN, init_lora_weights="mica")
    peft.get_peft_model(by_transformers(model), config).save_pretrained(copied)
    assert "is zero, so it changes nothing" in refused(lambda: by_us(model, copied))


def test_weights_of_eight_bits_are_taken(model: str, copied: Path) -> None:
    saved(by_transformers(model), copied)
    file = copied / "adapter_model.safetensors"
    eight = {key: weight.to(torch.float8_e4m3fn) for key, weight in load_file(file).items()}
    save_file(eight, file, metadata={"format": "pt"})
    np.testing.assert_allclose(by_us(model, copied), by_peft(by_transformers(model), copied), atol=1e-5)


RESIZED: dict[str, dict[str, Any]] = {
    "saved since it was resized": {},
    "a target": {"target_modules": ["q_proj", "embed_tokens"]},
    "trained in full": {"modules_to_save": ["embed_tokens"]},
    "trained by token": {"trainable_token_indices": [402, 5]},
}


@pytest.mark.parametrize("changes", RESIZED.values(), ids=RESIZED)
@pytest.mark.parametrize("rows", [400, 420])
@pytest.mark.filterwarnings("ignore")
def test_embeddings_that_the_adapter_brings_are_taken(
    model: str, copied: Path, rows: int, changes: dict[str, Any]
) -> None:
    if rows == 400 and "trainable_token_indices" in changes:
        changes = {"trainable_token_indices": [5, 6]}
    base, again = by_transformers(model), by_transformers(model)
    for one in (base, again):
        one.resize_token_embeddings(rows)
    torch.nn.init.normal_(base.get_input_embeddings().weight.detach(), std=0.2)
    saved(base, copied, embeddings=True, **changes)
    texts = [np.array([3, 4, rows - 1, 5, rows - 18], np.int32), *ROWS]
    np.testing.assert_allclose(by_us(model, copied, texts), by_peft(again, copied, texts), atol=1e-5)
    assert embedding_rows(copied, "x") == rows


def test_an_adapter_that_leaves_the_embeddings_says_so(adapter: str) -> None:
    assert embedding_rows(Path(adapter), "x") is None


def test_targeted_embeddings_need_not_be_saved(model: str, copied: Path) -> None:
    expected = probabilities(
        saved(by_transformers(model), copied, embeddings=False, target_modules=["q_proj", "embed_tokens"])
    )
    np.testing.assert_allclose(by_us(model, copied), expected, atol=1e-5)


def test_a_tokenizer_beyond_the_embeddings_of_the_adapter_is_refused(model: str, copied: Path) -> None:
    base = by_transformers(model)
    base.resize_token_embeddings(300)
    saved(base, copied)
    with pytest.raises(UsageError, match=r"^model: the tokenizer .* but the adapter brings 300 embeddings; name"):
        by_us(model, copied)
