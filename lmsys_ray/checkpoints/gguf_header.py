"""What a GGUF file says beside its weights, where all of it is understood.

transformers ignores metadata and tensors that it does not know. Here they are a reason to refuse the file: a rope
scaling or a soft cap that is lost gives numbers that look like probabilities. Measurements: docs/lab/gguf.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from lmsys_ray.errors import UsageError

ROPE_FREQUENCIES = "rope_freqs.weight"
ROPE_LONG, ROPE_SHORT = "rope_factors_long.weight", "rope_factors_short.weight"

_REQUIRED = frozenset(
    {
        *("block_count", "context_length", "embedding_length", "feed_forward_length"),
        *("attention.head_count", "attention.layer_norm_rms_epsilon"),
    }
)
_COMMON = _REQUIRED | {
    *("vocab_size", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.finetuned"),
    *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
}

_NEUTRAL = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "tensor_data_layout": "Meta AI original pth",
    "pooling_type": 0,
    "use_parallel_residual": False,
}
"""Keys that have no effect at this value; a file with another value is refused."""

_TENSORS = frozenset({"token_embd.weight", "output_norm.weight", "output.weight"})
_NORMS = frozenset({"attn_norm.weight", "ffn_norm.weight"})
_ATTENTION = frozenset({f"attn_{part}.weight" for part in ("q", "k", "v", "output")})
_FEED_FORWARD = frozenset({"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"})
_DENSE = _NORMS | _ATTENTION | _FEED_FORWARD
_BIASES = frozenset({"attn_q.bias", "attn_k.bias", "attn_v.bias"})
_HEAD_NORMS = frozenset({"attn_q_norm.weight", "attn_k_norm.weight"})
_POST_NORMS = frozenset({"post_attention_norm.weight", "post_ffw_norm.weight"})

_BLOCK = re.compile(r"blk\.\d+\.(.+)")


@dataclass(frozen=True)
class Architecture:
    """How transformers builds an architecture of llama.cpp, and what a file of it may hold."""

    config: type[PreTrainedConfig]
    block: frozenset[str]
    """The tensors of each block."""
    tensors: frozenset[str] = _TENSORS
    required: frozenset[str] = _REQUIRED
    keys: frozenset[str] = frozenset()
    """The metadata that it has beside that of all architectures."""


ARCHITECTURES = {
    "llama": Architecture(LlamaConfig, _DENSE, _TENSORS | {ROPE_FREQUENCIES}),
    "qwen2": Architecture(Qwen2Config, _DENSE | _BIASES),
    "qwen3": Architecture(Qwen3Config, _DENSE | _HEAD_NORMS, required=_REQUIRED | {"attention.key_length"}),
    "gemma2": Architecture(
        Gemma2Config,
        _DENSE | _POST_NORMS,
        required=_REQUIRED | {"attention.key_length", "attention.sliding_window", "attn_logit_softcapping"},
        keys=frozenset({"final_logit_softcapping"}),  # of the language model's own head, which is not kept
    ),
    "gemma3": Architecture(
        Gemma3TextConfig,
        _DENSE | _POST_NORMS | _HEAD_NORMS,
        required=_REQUIRED | {"attention.key_length", "attention.sliding_window", "rope.freq_base"},
        keys=frozenset({"final_logit_softcapping", "rope.freq_base_swa"}),
    ),
    "phi3": Architecture(
        Phi3Config,
        _NORMS | {"attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"},
        _TENSORS | {ROPE_LONG, ROPE_SHORT},
        keys=frozenset({"attention.sliding_window"}),
    ),
}


@dataclass(frozen=True)
class Header:
    """The metadata of a file of a known architecture, and the shapes of its tensors."""

    file: Path
    architecture: str
    values: Mapping[str, Any]
    """By key; those of the architecture without the prefix of its name."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each tensor, in the order of PyTorch."""
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The tensors that scale the frequencies of the rotary embedding, [dimensions / 2] each."""

    def refuse(self, why: str) -> UsageError:
        """Returns the error for a file that cannot be converted without loss."""
        return UsageError(
            f"model: {self.file} cannot be converted without loss, {why}; "
            "name the transformers directory or the hub id that it was made from"
        )

    def number(self, key: str, otherwise: float | None = None) -> float:
        """Returns a positive number from the metadata, `otherwise` if it is missing."""
        value = self.values.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self.refuse(f"{key} is {value!r:.80} where one positive number is needed")
        return value

    def count(self, key: str, otherwise: int | None = None) -> int:
        """Returns a positive whole number from the metadata, `otherwise` if it is missing."""
        value = self.number(key, otherwise)
        if value != int(value):
            raise self.refuse(f"{key} is {value!r} where a whole number is needed")
        return int(value)


def read_header(file: Path) -> Header:
    """Reads the header of `file`.

    Raises `UsageError` for a key or tensor that is unknown and takes part in the computation, and the errors of the
    package gguf for a damaged file.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    names = {
        key: reader.fields[key].contents()
        for key in ("general.architecture", "general.type", "split.count")
        if key in reader.fields
    }
    architecture = str(names.get("general.architecture"))
    shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
    scaling = {
        tensor.name: tensor for tensor in reader.tensors if tensor.name in (ROPE_FREQUENCIES, ROPE_LONG, ROPE_SHORT)
    }
    factors = {name: gguf.dequantize(tensor.data, tensor.tensor_type).ravel() for name, tensor in scaling.items()}
    prefix = f"{architecture}."
    ids = [f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "padding")]
    wanted = [key for key in reader.fields if key.startswith(prefix) or key in ids]
    values = {key.removeprefix(prefix): reader.fields[key].contents() for key in wanted}
    header = Header(file, architecture, values, shapes, factors)
    if names.get("general.type", "model") != "model":
        raise UsageError(f"model: {file} is a GGUF file of the type {names['general.type']}, not of a model")
    if names.get("split.count", 1) > 1:
        raise UsageError(f"model: {file} is one of {names['split.count']} parts; merge them with llama-gguf-split")
    _check_known(header, [key.removeprefix(prefix) for key in wanted if key.startswith(prefix)])
    return header


def _check_known(header: Header, keys: list[str]) -> None:
    if header.architecture not in ARCHITECTURES:
        raise header.refuse(
            f"its architecture is {header.architecture} and only {', '.join(ARCHITECTURES)} are carried over"
        )
    known = ARCHITECTURES[header.architecture]
    for key in keys:
        value = header.values[key]
        if key in _NEUTRAL and value != _NEUTRAL[key]:
            raise header.refuse(f"its metadata holds {key} = {value!r:.80}")
        if key not in (_COMMON | known.required | known.keys | _NEUTRAL.keys()):
            raise header.refuse(f"its metadata holds {key} = {value!r:.80}, which is not carried over")
    if lacking := sorted(known.required - set(keys)):
        raise header.refuse(f"its metadata lacks {', '.join(lacking)}")
    for name in header.shapes:
        block = _BLOCK.fullmatch(name)
        if name not in known.tensors and not (block and block[1] in known.block):
            raise header.refuse(f"it holds the tensor {name}, which is not carried over")
    if "token_embd.weight" not in header.shapes:
        raise header.refuse("it lacks the tensor token_embd.weight")
