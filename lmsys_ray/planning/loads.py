"""What a member with a language model loads, from its config and the headers of its weights; no weights are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lmsys_ray.checkpoints.settings import ModelSettings
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine.weight_counts import Weights
from lmsys_ray.planning.devices import Machine


@runtime_checkable
class NamesModel(Protocol):
    """Settings of a kind with a language model; such settings are those of `ModelSettings` too."""

    model: str
    adapter: str | None
    append_eos: bool
    special_tokens: Any
    max_length: int
    quantization: str
    device: str
    gpus_per_replica: float
    batch_tokens: Any


@dataclass(frozen=True)
class Loads:
    """What is loaded for a member."""

    architecture: str
    parameters: int
    """Of the model, in the blocks that are used."""
    adapter_parameters: int
    blocks: int
    quantization: str
    dtype: str
    width: int
    """Bytes of an activation."""
    weight_bytes: int
    """Of the model in this quantization, without the adapter."""
    stored: str
    """Types of the tensors in the files, by how many weights have them."""
    attention: str
    causal: bool
    tokenizer: str
    vocabulary: int
    head: str
    pooling: str
    hidden: int
    intermediate: int
    heads: int
    head_dim: int
    computed: int
    """Weights that each token is multiplied with."""


def read_loads(settings: NamesModel, machine: Machine) -> Loads:
    """Returns what a member with `settings` loads on a machine.

    Raises `UsageError` where its files cannot be read or are not those of a model.
    """
    from transformers import AutoConfig

    from lmsys_ray.checkpoints import depth, stored
    from lmsys_ray.checkpoints.config_checks import is_causal, read_json
    from lmsys_ray.checkpoints.reading import library_errors
    from lmsys_ray.checkpoints.sources import SCORING, TOKENIZER_FILES, model_directory, read_tokenizer, trained_dtype
    from lmsys_ray.engine import weight_counts
    from lmsys_ray.engine.models.classes import classifier_class, without_weights
    from lmsys_ray.errors import UsageError
    from lmsys_ray.quiet import quiet_libraries

    own, name = cast(ModelSettings, settings), settings.model
    with quiet_libraries():
        directory = model_directory(name, (*TOKENIZER_FILES, SCORING))
        content = read_json(directory, name)
        with library_errors(f"model: {name} is not a model that transformers knows", "fetch it again"):
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        if classifier_class(config) is None:
            raise UsageError(f"model: transformers has no sequence classifier for {config.model_type}, that of {name}")
        depth.keep_first(own.layers, config, name)
        found = _tensors(directory, name)
        with library_errors(f"model: transformers cannot build {name} by its config.json", "mend it"):
            weights, meta = weight_counts.count(config), without_weights(config)
        read = read_tokenizer(name, own.adapter, own.append_eos)
    text, decoder = config.get_text_config(), hasattr(meta, "score")
    kept = {key: tensor for key, tensor in found.items() if not depth.is_dropped_block(key, own.layers)}
    described = stored.description(config)
    dtype = dtype_on(own.dtype, trained_dtype(own), machine)
    width = _WIDTHS[dtype]
    if described is None:
        memory = int(machine.memory * settings.gpus_per_replica) if machine.gpus else 0
        quantization = choose(settings.quantization, weights, memory, width)
        weight_bytes = round(weights.bytes(BYTES.get(quantization, width), width))
    else:
        quantization = f"stored by {stored.method(described)}"
        weight_bytes = stored.needed_bytes(found, own.layers) or _stored_bytes(described, weights, width)
    heads = getattr(text, "num_attention_heads", 1) or 1
    return Loads(
        architecture=type(meta).__name__,
        parameters=weights.quantized + weights.plain + weights.embeddings,
        adapter_parameters=_adapter_parameters(own),
        blocks=getattr(text, "num_hidden_layers", 0) or 0,
        quantization=quantization,
        dtype=dtype,
        width=width,
        weight_bytes=weight_bytes,
        stored=_types(kept),
        attention=_attention(text, heads, decoder, own),
        causal=decoder and is_causal(config),
        tokenizer=f"{type(read.tokenizer.model).__name__} of {read.place}",
        vocabulary=read.tokenizer.get_vocab_size(),
        head=_head(settings, found, content),
        pooling=_pooling(own, decoder),
        hidden=getattr(text, "hidden_size", 0) or 0,
        intermediate=getattr(text, "intermediate_size", 0) or 4 * (getattr(text, "hidden_size", 0) or 0),
        heads=heads,
        head_dim=getattr(text, "head_dim", None) or (getattr(text, "hidden_size", 0) or 0) // heads,
        computed=weights.quantized + weights.plain,
    )


_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}

BYTES = {"int8": 1.0, "nf4": 0.5625, "int8_dynamic": 1.0, "fp8": 1.0}
"""Bytes of a weight that is quantized; nf4 keeps a scale for every 64."""


def dtype_on(setting: str, trained: str | None, machine: Machine) -> str:
    """Returns the type of activations on a machine, as `lmsys_ray.engine.devices.choose_dtype` on that machine does."""
    if setting != "auto":
        return setting
    if machine.here:
        from lmsys_ray.engine import devices

        return str(devices.choose_dtype(setting, trained)).removeprefix("torch.")
    has_bfloat16 = machine.gpu is None or machine.gpu.bfloat16
    if trained in ("float32", "float16") or (trained == "bfloat16" and has_bfloat16):
        return trained
    return "bfloat16" if has_bfloat16 else "float16"


def choose(setting: str, weights: Weights, memory: int, width: int) -> str:
    """Returns the quantization that a setting means on a GPU of `memory` bytes (0: none)."""
    from lmsys_ray.engine import devices

    return setting if setting != "auto" else devices.choose_quantization(setting, weights, memory, width)


def _tensors(directory: Path, name: str) -> dict[str, Any]:
    """Returns the tensors of a model by the headers of its files; none where these are not on this machine.

    A plan does not fetch gigabytes to tell what is in them.
    """
    from lmsys_ray.checkpoints.weight_files import INDEX, WEIGHTS, tensors

    there = (directory / WEIGHTS).is_file()
    if not there and (directory / INDEX).is_file():
        listed = json.loads((directory / INDEX).read_text(encoding="utf-8")).get("weight_map", {})
        there = all((directory / file).is_file() for file in listed.values())
    return dict(tensors(directory, name)) if there else {}


def _stored_bytes(described: dict[str, Any], weights: Weights, width: int) -> int:
    """Returns the bytes of a checkpoint stored quantized whose files are not here, by the bits in its config."""
    bits = described.get("bits") or (4 if described.get("load_in_4bit") else 8)
    return round(weights.bytes(bits / 8, width))


def _types(found: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for tensor in found.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + prod(tensor.shape)
    return ", ".join(sorted(counts, key=lambda dtype: -counts[dtype])) or "not known before the weights are here"


def _adapter_parameters(settings: ModelSettings) -> int:
    if settings.adapter is None:
        return 0
    from lmsys_ray.checkpoints.reading import library_errors
    from lmsys_ray.checkpoints.sources import adapter_directory
    from lmsys_ray.checkpoints.weight_files import header

    file = adapter_directory(settings.adapter) / "adapter_model.safetensors"
    if not file.is_file():
        return 0
    with library_errors(f"adapter: the weights of {settings.adapter} cannot be read", "copy it again"):
        return sum(prod(tensor.shape) for tensor in header(file).values())


def _attention(text: Any, heads: int, decoder: bool, settings: ModelSettings) -> str:
    groups = getattr(text, "num_key_value_heads", None) or heads
    sees = "causal" if decoder else "in both directions"
    shared = f" on {groups} keys" if groups != heads else ""
    window = getattr(text, "sliding_window", None)
    rows = (
        "packed end to end where the model allows it" if settings.padding == "none" else f"padded: {settings.padding}"
    )
    return f"{sees}, {heads} heads{shared}{f', window of {window:,}' if window else ''}; rows {rows}"


def _head(settings: NamesModel, found: dict[str, Any], content: dict[str, Any]) -> str:
    wanted = getattr(settings, "wanted", None)
    if not isinstance(wanted, Wanted):
        return "as its kind reads it"
    if not found and settings.adapter is None:
        return "not known before the weights are here"
    from lmsys_ray.checkpoints.heads import find_head

    form = find_head(found, content, wanted, settings.model).form
    place = "the adapter's" if settings.adapter is not None else "the model's"
    return f"{form} of {wanted.outputs} outputs, {place}"


def _pooling(settings: ModelSettings, decoder: bool) -> str:
    from lmsys_ray.checkpoints.sources import pools_last_token

    if not decoder:
        return "the encoder's own"
    last = pools_last_token(settings.model, settings.adapter)
    return "last token" if last else "last token that is not the pad"
