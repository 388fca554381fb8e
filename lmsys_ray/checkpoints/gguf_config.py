"""The transformers config that computes what a GGUF file describes, as llama.cpp reads it."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmsys_ray.checkpoints.gguf_header import ARCHITECTURES, ROPE_FREQUENCIES, ROPE_LONG, ROPE_SHORT, Header

_BLOCKS_OF_27B = {"gemma2": 46, "gemma3": 62}
"""The numbers of blocks by which llama.cpp recognises the Gemma models that scale queries by width / heads."""

_SAME = 1e-6
"""The largest relative difference of a rotary frequency from that of the file."""

_PUBLISHED_HIGH, _PUBLISHED_CONTEXT = 4.0, 8192
"""Those of Llama 3.1, 3.2 and 3.3, for heads that have too few frequencies to infer them."""


def config_of(header: Header) -> PreTrainedConfig:
    """Returns the config of the backbone in the file.

    Raises `UsageError` where transformers cannot compute what the file describes.
    """
    kind = ARCHITECTURES[header.architecture].config
    width, heads = header.count("embedding_length"), header.count("attention.head_count")
    head_dim = _head_dim(header, kind, width, heads)
    ids = {
        f"{name}_token_id": header.values.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    values: dict[str, Any] = {
        "vocab_size": header.shapes["token_embd.weight"][0],
        "hidden_size": width,
        "intermediate_size": header.count("feed_forward_length"),
        "num_hidden_layers": header.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.count("attention.head_count_kv", heads),
        "rms_norm_eps": header.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": header.count("context_length"),
        "tie_word_embeddings": "output.weight" not in header.shapes,
        "rope_parameters": _rope(header, head_dim),
        **ids,
        **_own(header, width // heads, head_dim),
    }
    if _has(kind, "head_dim"):
        values["head_dim"] = head_dim
    config = kind(**values)
    _check_frequencies(header, config, head_dim)
    return config


def _has(kind: type[PreTrainedConfig], name: str) -> bool:
    return any(field.name == name for field in fields(kind))


def _head_dim(header: Header, kind: type[PreTrainedConfig], width: int, heads: int) -> int:
    share = width // heads
    head_dim = header.count("attention.key_length", share)
    if header.count("attention.value_length", head_dim) != head_dim:
        raise header.refuse("its keys and values differ in length")
    if not _has(kind, "head_dim") and head_dim != share:
        raise header.refuse(f"its heads are {head_dim} wide where transformers has {share}")
    turned = header.count("rope.dimension_count", head_dim)
    if turned != head_dim and header.architecture != "phi3":
        raise header.refuse(f"only {turned} of the {head_dim} dimensions of a head are turned by the position")
    return head_dim


def _own(header: Header, share: int, head_dim: int) -> dict[str, Any]:
    """Returns the keys that only this architecture has."""
    if header.architecture == "phi3":
        window = header.values.get("attention.sliding_window") or None  # 0: none
        trained = header.values.get("rope.scaling.original_context_length", header.values["context_length"])
        return {"sliding_window": window, "original_max_position_embeddings": trained}
    if header.architecture not in _BLOCKS_OF_27B:
        return {}
    largest = header.count("block_count") == _BLOCKS_OF_27B[header.architecture]
    own: dict[str, Any] = {
        "sliding_window": header.count("attention.sliding_window"),
        "query_pre_attn_scalar": share if largest else head_dim,
    }
    if header.architecture == "gemma2":
        own["attn_logit_softcapping"] = header.number("attn_logit_softcapping")
    return own


def _rope(header: Header, head_dim: int) -> dict[str, Any]:
    """Returns the parameters of the rotary embedding."""
    theta = header.number("rope.freq_base", 10000.0)
    if header.architecture == "gemma3":
        window = {"rope_type": "default", "rope_theta": header.number("rope.freq_base_swa", 10000.0)}
        return {"full_attention": _scaled(header) | {"rope_theta": theta}, "sliding_attention": window}
    turned = header.count("rope.dimension_count", head_dim)
    if ROPE_FREQUENCIES in header.factors:
        return _like_llama3(header, theta, turned) | {"rope_theta": theta}
    if header.architecture == "phi3":
        return _of_phi3(header) | {"rope_theta": theta, "partial_rotary_factor": turned / head_dim}
    return _scaled(header) | {"rope_theta": theta}


def _scaled(header: Header) -> dict[str, Any]:
    """Returns the scaling of the rotary embedding by metadata; without a type, llama.cpp scales linearly."""
    kind, factor = header.values.get("rope.scaling.type", "linear"), header.values.get("rope.scaling.factor", 0) or 1
    if header.number("rope.scaling.attn_factor", 1) != 1:
        raise header.refuse(f"rope.scaling.attn_factor is {header.values['rope.scaling.attn_factor']}")
    if kind == "none" or (kind == "linear" and factor == 1):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": header.number("rope.scaling.factor")}
    if kind != "yarn":
        raise header.refuse(f"rope.scaling.type is {kind!r}")
    return {
        "rope_type": "yarn",
        "factor": header.number("rope.scaling.factor"),
        "original_max_position_embeddings": header.count("rope.scaling.original_context_length"),
        "beta_fast": header.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": header.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def _of_phi3(header: Header) -> dict[str, Any]:
    if not header.factors:
        if (scaled := _scaled(header)) != {"rope_type": "default"}:
            raise header.refuse(f"rope.scaling.type is {scaled['rope_type']!r}")
        return scaled
    if (
        set(header.factors) != {ROPE_LONG, ROPE_SHORT}
        or header.values.get("rope.scaling.type", "longrope") != "longrope"
    ):
        raise header.refuse("its rope factors and rope.scaling.type do not belong together")
    trained, longest = header.count("rope.scaling.original_context_length"), header.count("context_length")
    return {
        "rope_type": "longrope",
        "factor": max(1.0, longest / trained),
        "attention_factor": header.number("rope.scaling.attn_factor", 1.0),
        "original_max_position_embeddings": trained,
        "long_factor": header.factors[ROPE_LONG].tolist(),
        "short_factor": header.factors[ROPE_SHORT].tolist(),
    }


def _like_llama3(header: Header, theta: float, turned: int) -> dict[str, Any]:
    """Returns the scaling of Llama 3 that gives the factors in the file, which does not name it.

    Between two bounds of the wavelength, factors rise from 1 to the largest, and their inverse is linear in the
    frequency. So two such factors determine both bounds, up to a common scale, which is set by low_freq_factor = 1.
    """
    factors = header.factors[ROPE_FREQUENCIES].astype(np.float64)
    if _scaled(header) != {"rope_type": "default"}:
        raise header.refuse(f"it holds both {ROPE_FREQUENCIES} and rope.scaling.type")
    if len(factors) != turned // 2 or not np.isfinite(factors).all() or factors.min() < 1:
        raise header.refuse(f"{ROPE_FREQUENCIES} does not scale the {turned // 2} frequencies of a head")
    largest = float(factors.max())
    if largest == 1:
        return {"rope_type": "default"}
    frequencies = theta ** -(np.arange(0, turned, 2) / turned)
    between = (factors != 1) & (factors != largest)
    high, context = _PUBLISHED_HIGH, _PUBLISHED_CONTEXT
    if between.sum() >= 2:
        share = (1 / factors - 1 / largest) / (1 - 1 / largest)
        slope, start = np.polyfit(frequencies[between] / (2 * np.pi), share[between], 1)
        if start < 0 < slope:
            high = round(float(1 - 1 / start), 4)
            context = max(1, round(float(slope * -1 / start)))
    return {
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def _check_frequencies(header: Header, config: PreTrainedConfig, head_dim: int) -> None:
    """Checks that transformers rotates heads by the frequencies of the file."""
    if ROPE_FREQUENCIES not in header.factors:
        return
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    expected = 1 / header.number("rope.freq_base", 10000.0) ** exponents
    expected = expected / torch.from_numpy(header.factors[ROPE_FREQUENCIES].astype(np.float32))
    rope: dict[str, Any] = config.rope_parameters
    found = expected if rope["rope_type"] == "default" else ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")[0]
    if not torch.allclose(found, expected, rtol=_SAME, atol=0):
        raise header.refuse(f"{ROPE_FREQUENCIES} is not a scaling that transformers knows")
