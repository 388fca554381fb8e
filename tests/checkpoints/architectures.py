"""A tiny random model of each architecture for which transformers has a sequence classifier."""

from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

CONFIGS: dict[str, type[PreTrainedConfig]] = {
    config.model_type: config for config in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
}

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": 24,
    "window_size": 24,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    # low-rank attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    # linear attention and state spaces
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
}

_EVEN_IF_UNSET = {"vocab_size", "head_dim", "num_key_value_heads", "num_experts_per_tok"}

_LINEAR_THEN_FULL = ["linear_attention", "full_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LATENT = {"num_key_value_heads": 4, "v_head_dim": 8}
_ROUTED = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}

_CHANGES: dict[str, dict[str, Any]] = {
    "axk1": _LATENT | _ROUTED,
    "axk2": _LATENT | _ROUTED,
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "deepseek_v2": _LATENT | _ROUTED,
    "deepseek_v3": _LATENT | _ROUTED,
    "doge": {"keep_window_size": 24},
    "esmc": {"num_key_value_heads": 4},
    "falcon": {"num_kv_heads": 4},
    "gpt_neo": {"num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "use_mamba_kernels": False},
    "jetmoe": {"kv_channels": 8, "num_key_value_heads": 2},
    "minicpm3": _LATENT,
    "minimax": {"layer_types": _LINEAR_THEN_FULL},
    "mistral4": _LATENT
    | _ROUTED
    | {"rope_parameters": _ROPE | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64}},
    "qwen3_5_text": {"layer_types": _LINEAR_THEN_FULL},
    "qwen3_next": {"layer_types": _LINEAR_THEN_FULL},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "use_mamba_kernels": False,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 2, "use_mamba_kernels": False},
}

PADDINGS = ("none", "longest", "max_length")

PACKED = {
    *("arcee", "axk1", "biogpt", "cohere_compass_text", "deepseek_v2", "deepseek_v3", "diffllama", "exaone4", "gemma"),
    *("gemma2", "gemma3", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "helium"),
    *("hunyuan_v1_dense", "hunyuan_v1_moe", "jetmoe", "llama", "minicpm3", "ministral", "ministral3", "mistral"),
    *("mistral4", "mixtral", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2"),
    *("qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "starcoder2"),
    *("deepseek_v2, values of another size", "deepseek_v3, values of another size", "longrope"),
    *("minicpm3, values of another size", "opt, projected"),
}
"""Architectures and variants whose rows are packed; others are padded, or refused."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bidirectional gemma3": ("gemma3_text", {"use_bidirectional_attention": True}),
    "bidirectional llama": ("llama", {"is_causal": False}),
    "deepseek_v3, values of another size": ("deepseek_v3", {"v_head_dim": 12}),
    "deepseek_v2, values of another size": ("deepseek_v2", {"v_head_dim": 12}),
    "falcon with alibi": ("falcon", {"alibi": True}),
    "falcon 40b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "longrope": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0, 1.1, 1.2, 1.3],
                "long_factor": [2.0, 3.0, 4.0, 5.0],
                "original_max_position_embeddings": 48,
            },
            "original_max_position_embeddings": 48,
        },
    ),
    "minicpm3, values of another size": ("minicpm3", {"v_head_dim": 12}),
    "opt, projected": ("opt", {"word_embed_proj_dim": 16}),
    "stablelm, parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
}


def is_decoder(name: str) -> bool:
    """Returns whether the classifier of the architecture is a decoder with a head named score, as judges are."""
    if CONFIGS[name]().is_encoder_decoder:
        return False
    try:
        with torch.device("meta"):
            return hasattr(AutoModelForSequenceClassification.from_config(tiny_config(name)), "score")
    except (ImportError, TypeError, ValueError, AssertionError, NotImplementedError, StrictDataclassError):
        return False  # Decoders can all be made; some encoders take other sizes, or a package of their own.


def tiny_config(name: str, **changes: Any) -> PreTrainedConfig:
    """Returns a config of the architecture with sizes that a test can afford."""
    cls = CONFIGS[name]
    return cls(**deepcopy(_small(cls(), _CHANGES.get(name, {}) | changes)), num_labels=3)


def _small(usual: PreTrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    read_only = {key for key in _SIZES if isinstance(getattr(type(usual), key, None), property)}
    there = {key for key in _SIZES if getattr(usual, key, None) or (key in _EVEN_IF_UNSET and hasattr(usual, key))}
    sizes = {key: value for key, value in _SIZES.items() if key in there - read_only}
    small = {**sizes, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, **changes}
    for key in type(usual).sub_configs:
        if isinstance(part := getattr(usual, key), PreTrainedConfig):
            small[key] = _small(part, {})
    return small


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Returns a classifier none of whose parameters is what initialization makes of it: zeros hide what they scale."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()
