"""GGUF files are converted once, whole, into a directory of the user's cache."""

import json
import multiprocessing
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedModel

from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.gguf import converted
from lmsys_ray.members.llama.sources import load_tokenizer
from tests import tiny_llama

TENSORS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Orders the rows of a query or key projection the way llama.cpp rotates them."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(file: Path, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Writes a Llama backbone and a byte-level tokenizer as llama.cpp does."""
    config, writer = model.config, gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(1)
    weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    writer.add_tensor("token_embd.weight", weights["embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["norm.weight"])
    for layer in range(config.num_hidden_layers):
        for ours, theirs in TENSORS.items():
            weight = weights[f"layers.{layer}.{ours}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(theirs)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", permuted(weight, heads) if heads else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def original() -> PreTrainedModel:
    return tiny_llama.make_classifier().model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, original: PreTrainedModel) -> Path:
    directory = tmp_path_factory.mktemp("gguf")
    write_gguf(directory / "tiny.gguf", original, tiny_llama.make_tokenizer(directory))
    return directory / "tiny.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path))
    return tmp_path


def test_the_converted_model_is_the_one_that_was_written(file: Path, cache: Path, original: PreTrainedModel) -> None:
    directory = converted(file)
    assert directory.is_relative_to(cache)
    restored = dict(AutoModel.from_pretrained(directory).named_parameters())
    for name, weight in original.named_parameters():
        assert torch.equal(restored[name], weight), name


def test_a_file_that_is_damaged_is_refused_and_leaves_nothing(file: Path, cache: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGML" + file.read_bytes()[4:])
    with pytest.raises(UsageError, match=r"^model: .*damaged\.gguf cannot be converted \("):
        converted(damaged)
    assert [path.suffix for path in (cache / "gguf").iterdir()] == [".lock"]


def test_the_tokenizer_comes_along(file: Path, cache: Path) -> None:
    reference = Tokenizer.from_file(str(file.parent / "tokenizer.json"))
    text = "The quick brown fox, it's 42?!\n\n为什么"
    found = load_tokenizer(str(file)).encode(text, add_special_tokens=False).ids
    assert found == reference.encode(text, add_special_tokens=False).ids


def test_a_file_is_converted_once_until_it_changes(file: Path, cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    first = converted(copy)
    made = (first / "model.safetensors").stat().st_mtime_ns
    os.utime(copy)  # installed again, the same content
    assert converted(copy) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    changed = bytearray(copy.read_bytes())
    changed[-1] ^= 1
    copy.write_bytes(changed)
    assert converted(copy) != first


@pytest.mark.slow  # two new processes import torch
def test_two_processes_that_convert_at_once_get_the_same_whole_directory(file: Path, cache: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(converted, [file, file])
    assert first == second
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in first.iterdir()}
    assert [path for path in first.parent.iterdir() if path.is_dir()] == [first]  # nothing half-made is left
