"""A converted GGUF file computes what the model that it was made from does, or it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from lmsys_ray.checkpoints.gguf import converted
from lmsys_ray.checkpoints.gguf_config import config_of
from lmsys_ray.checkpoints.gguf_header import Header
from lmsys_ray.errors import UsageError
from tests import tiny_llama
from tests.tiny_gguf import llama3_factors, write_gguf

TOKENS = 768
SIZES = {**tiny_llama.SIZES, "hidden_size": 64, "max_position_embeddings": 131072}
THETA = {"rope_theta": 500000.0}


def llama3(factor: float, context: int, low: float = 1.0, high: float = 4.0) -> dict[str, Any]:
    bounds = {"low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": context}
    return {"rope_type": "llama3", "factor": factor, **bounds, **THETA}


def longrope(count: int) -> dict[str, Any]:
    short = np.linspace(1, 1.2, count, dtype=np.float32).tolist()
    long = np.linspace(1, 8, count, dtype=np.float32).tolist()
    scaled = {"short_factor": short, "long_factor": long, "factor": 32.0, "original_max_position_embeddings": 512}
    return {"rope_type": "longrope", "rope_theta": 10000.0, "attention_factor": 1.25, **scaled}


def make(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in name and "gemma" not in config.model_type), std=0.2)
    return model


def hidden(model: PreTrainedModel) -> torch.Tensor:
    """Returns the hidden states of the last tokens, [16, dim], of a long row."""
    ids = torch.randint(3, 400, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).last_hidden_state[0, -16:]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path


def through_gguf(
    folder: Path, model: PreTrainedModel, values: dict[str, Any], tensors: dict[str, np.ndarray]
) -> PreTrainedModel:
    file = folder / "tiny.gguf"
    write_gguf(file, model, tiny_llama.make_tokenizer(folder), values, tensors)
    return AutoModel.from_pretrained(converted(file), attn_implementation="eager").eval()


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, **THETA}
YARN_KEYS = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}
LINEAR_KEYS = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
GEMMA = {**SIZES, "head_dim": 16, "sliding_window": 100}
GEMMA2 = {"attention.sliding_window": 100, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 30.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
PHI3_KEYS = {"rope.scaling.attn_factor": 1.25, "rope.scaling.original_context_length": 512}

CARRIED: dict[str, tuple[PreTrainedConfig, dict[str, Any]]] = {
    "llama": (LlamaConfig(**SIZES), {}),
    "llama, wide heads": (LlamaConfig(**{**SIZES, "head_dim": 32}), {}),
    "llama, no base": (LlamaConfig(**SIZES), {"rope.freq_base": None, "attention.key_length": None}),
    "llama, linear": (
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "factor": 8.0, **THETA}),
        LINEAR_KEYS,
    ),
    "llama, a factor": (
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "factor": 8.0, **THETA}),
        {"rope.scaling.factor": 8.0},
    ),
    "llama, yarn": (LlamaConfig(**SIZES, rope_parameters=YARN), YARN_KEYS),
    "llama, yarn's bounds": (
        LlamaConfig(**SIZES, rope_parameters={**YARN, "beta_fast": 16.0, "beta_slow": 2.0}),
        {**YARN_KEYS, "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0},
    ),
    "qwen2": (Qwen2Config(**SIZES, rope_parameters=dict(THETA)), {}),
    "qwen2, yarn": (Qwen2Config(**SIZES, rope_parameters=YARN), YARN_KEYS),
    "qwen3": (Qwen3Config(**{**SIZES, "head_dim": 32}, rope_parameters=dict(THETA)), {}),
    "gemma2": (Gemma2Config(**GEMMA, attn_logit_softcapping=2.0, query_pre_attn_scalar=16), GEMMA2),
    "gemma3": (
        Gemma3TextConfig(**{**GEMMA, "num_hidden_layers": 6}, query_pre_attn_scalar=16, rope_parameters=GEMMA3_ROPE),
        {"attention.sliding_window": 100, **LINEAR_KEYS},
    ),
    "phi3, window": (Phi3Config(**SIZES, sliding_window=100), {"attention.sliding_window": 100}),
    "phi3, partial": (Phi3Config(**SIZES, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}), {}),
    "phi3, longrope": (
        Phi3Config(**SIZES, original_max_position_embeddings=512, rope_parameters=longrope(8)),
        PHI3_KEYS,
    ),
}


@pytest.mark.parametrize("case", CARRIED)
def test_a_converted_file_computes_what_its_model_does(cache: Path, case: str) -> None:
    config, values = CARRIED[case]
    model, tensors = make(config), {}
    if case == "phi3, longrope":
        rope = config.rope_parameters
        tensors = {f"rope_factors_{n}.weight": np.array(rope[f"{n}_factor"], np.float32) for n in ("long", "short")}
    found = hidden(through_gguf(cache, model, values, tensors))
    torch.testing.assert_close(found, hidden(model), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("rope", "head_dim"),
    [
        (llama3(8.0, 8192), 16),  # too few of its frequencies lie between the bounds to tell them
        (llama3(8.0, 8192), 128),
        (llama3(32.0, 8192), 64),
        (llama3(4.0, 512, high=8.0), 64),
        (llama3(16.0, 8192, low=2.0, high=6.0), 128),
    ],
)
def test_the_rope_factors_of_llama_3_are_carried_over(cache: Path, rope: dict[str, Any], head_dim: int) -> None:
    model = make(LlamaConfig(**{**SIZES, "head_dim": head_dim}, rope_parameters=dict(rope)))
    found = through_gguf(cache, model, {}, {"rope_freqs.weight": llama3_factors(model.config)})
    torch.testing.assert_close(found.rotary_emb.inv_freq, model.rotary_emb.inv_freq, rtol=1e-6, atol=0)
    torch.testing.assert_close(hidden(found), hidden(model), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("architecture", "blocks"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemma_scales_its_queries_by_a_share_of_its_width(architecture: str, blocks: int) -> None:
    values = {
        **{"block_count": blocks, "context_length": 8192, "embedding_length": 4608, "feed_forward_length": 36864},
        **{"attention.head_count": 32, "attention.head_count_kv": 16, "attention.key_length": 128},
        **{"attention.layer_norm_rms_epsilon": 1e-6, "attention.sliding_window": 4096, "attn_logit_softcapping": 50.0},
    }
    shapes = {"token_embd.weight": (256000, 4608)}
    assert config_of(Header(Path("x"), architecture, values, shapes)).query_pre_attn_scalar == 144
    fewer = Header(Path("x"), architecture, {**values, "block_count": 42}, shapes)
    assert config_of(fewer).query_pre_attn_scalar == 128


FOUR = np.array([1, 1, 1, 1, 2, 4, 8, 8], np.float32)
REFUSED: list[tuple[str, dict[str, Any], dict[str, np.ndarray], str]] = [
    ("llama", {}, {"rope_freqs.weight": FOUR}, "rope_freqs.weight is not a scaling that transformers knows"),
    ("llama", {}, {"rope_freqs.weight": FOUR[:4]}, "rope_freqs.weight does not scale the 8 frequencies of a head"),
    ("llama", {}, {"rope_freqs.weight": FOUR * np.nan}, "rope_freqs.weight does not scale the 8 frequencies"),
    ("llama", LINEAR_KEYS, {"rope_freqs.weight": FOUR}, "it holds both rope_freqs.weight and rope.scaling.type"),
    ("llama", {"rope.scaling.type": "longrope"}, {}, "rope.scaling.type is 'longrope'"),
    ("llama", {**YARN_KEYS, "rope.scaling.attn_factor": 0.5}, {}, "rope.scaling.attn_factor is 0.5"),
    ("llama", {"attention.scale": 0.5}, {}, "its metadata holds attention.scale = 0.5, which is not carried over"),
    ("llama", {"attn_logit_softcapping": 30.0}, {}, "its metadata holds attn_logit_softcapping = 30.0"),
    ("llama", {"attention.sliding_window": 64}, {}, "its metadata holds attention.sliding_window = 64"),
    ("llama", {"attention.causal": False}, {}, "its metadata holds attention.causal = False"),
    ("llama", {"expert_count": 8}, {}, "its metadata holds expert_count = 8"),
    ("llama", {"attention.value_length": 32}, {}, "its keys and values differ in length"),
    ("llama", {"rope.dimension_count": 8}, {}, "only 8 of the 16 dimensions of a head are turned"),
    ("llama", {"attention.layer_norm_rms_epsilon": None}, {}, "its metadata lacks attention.layer_norm_rms_epsilon"),
    ("llama", {"attention.head_count_kv": [2, 4]}, {}, r"attention.head_count_kv is \[2, 4\]"),
    ("llama", {}, {"blk.0.attn_q.bias": np.ones(64, np.float32)}, "it holds the tensor blk.0.attn_q.bias"),
    ("llama", {}, {"cls.output.weight": np.ones((3, 64), np.float32)}, "it holds the tensor cls.output.weight"),
    ("gemma2", {**GEMMA2, "attn_logit_softcapping": None}, {}, "its metadata lacks attn_logit_softcapping"),
    ("gemma3", {"attention.sliding_window": None}, {}, "its metadata lacks attention.sliding_window"),
    ("phi3, partial", LINEAR_KEYS, {}, "rope.scaling.type is 'linear'"),
    ("phi3, partial", {}, {"rope_factors_long.weight": FOUR}, "its rope factors and rope.scaling.type"),
]


@pytest.mark.parametrize(("case", "values", "tensors", "why"), REFUSED)
def test_what_is_not_carried_over_is_refused(
    cache: Path, case: str, values: dict[str, Any], tensors: dict[str, np.ndarray], why: str
) -> None:
    with pytest.raises(UsageError, match=rf"^model: .*tiny\.gguf cannot be converted without loss, {why}.*; name the"):
        through_gguf(cache, make(CARRIED[case][0]), values, tensors)


def test_a_file_of_an_architecture_that_is_not_known_whole_is_refused(cache: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(cache / "falcon.gguf", "falcon")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UsageError, match="its architecture is falcon and only llama, qwen2, qwen3, gemma2, gemma3, phi3"
    ):
        converted(cache / "falcon.gguf")


def test_a_file_that_lacks_weights_is_refused(cache: Path) -> None:
    model = make(Qwen2Config(**SIZES))
    del model.layers[1].self_attn.k_proj.bias
    model.layers[1].self_attn.k_proj.bias = None
    with pytest.raises(UsageError, match=r"lacks weights such as model\.layers\.1\.self_attn\.k_proj\.bias"):
        through_gguf(cache, model, {}, {})


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_is_refused(cache: Path, share: float) -> None:
    write_gguf(cache / "tiny.gguf", make(LlamaConfig(**SIZES)), tiny_llama.make_tokenizer(cache))
    whole = (cache / "tiny.gguf").read_bytes()
    (cache / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match=r"^model: .*cut\.gguf cannot be converted") as error:
        converted(cache / "cut.gguf")
    assert "\n" not in str(error.value)
