"""Writes tiny models as GGUF files the way llama.cpp's converters do."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedModel

ARCHITECTURES = {"gemma3_text": "gemma3"}


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    values: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes a backbone and a byte-level tokenizer, with more metadata (without the architecture's name) and tensors.

    A value of None leaves the key out.
    """
    name = ARCHITECTURES.get(model.config.model_type, model.config.model_type)
    writer = gguf.GGUFWriter(file, name)
    for key, value in (_shape(model.config) | dict(values or {})).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        if value is not None:
            add.get(type(value), writer.add_array)(f"{name}.{key}", value)
    _write_tokenizer(writer, tokenizer)
    kind = next(kind for kind, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    for ours, parameter in model.named_parameters():
        stem, _, suffix = ours.rpartition(".")
        theirs = names.get_name(f"model.{stem}")
        assert theirs is not None, ours
        writer.add_tensor(f"{theirs}.{suffix}", _as_stored(name, theirs, parameter.detach().numpy(), model.config))
    for theirs, tensor in (tensors or {}).items():
        writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_factors(config: PreTrainedConfig) -> np.ndarray:
    """Returns `rope_freqs.weight` as the converter writes it for a config of the rope type llama3."""
    rope = config.rope_parameters
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim))
    longest = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    shortest = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for frequency in frequencies:
        length = 2 * math.pi / frequency
        if length < shortest:
            factors.append(1.0)
        elif length > longest:
            factors.append(rope["factor"])
        else:
            share = rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]
            share /= rope["high_freq_factor"] - rope["low_freq_factor"]
            factors.append(float(1 / ((1 - share) / rope["factor"] + share)))
    return np.array(factors, np.float32)


def _shape(config: PreTrainedConfig) -> dict[str, Any]:
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1)),
        "rope.freq_base": float(rope["rope_theta"]),
        "vocab_size": config.vocab_size,
    }


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(1)


def _as_stored(architecture: str, name: str, weight: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    if architecture.startswith("gemma") and "norm" in name:
        return weight + 1
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-1])
    if architecture != "llama" or heads is None:
        return weight
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)  # llama.cpp turns pairs that lie beside each other
