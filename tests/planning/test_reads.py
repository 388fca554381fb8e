"""What a member reads and loads: against the encoder's own table, transformers' counts, and sums by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from lmsys_ray.members.protocol import CONVERSATIONS
from lmsys_ray.members.registry import kind_of, validated
from lmsys_ray.planning.devices import GIB, Machine
from lmsys_ray.planning.loads import NamesModel, read_loads
from lmsys_ray.planning.memory import memory_of
from lmsys_ray.planning.options import gpu_named
from lmsys_ray.planning.reads import Reads, doubled_start, histogram, quantiles, read_sample, shortened, shown_row
from lmsys_ray.planning.speed import assumed_speed, operations_per_token

HERE = Machine("2 CPU cores", 0, 2, 24 * GIB, here=True)


def sample(*rows: tuple[str, str, str]) -> pa.Table:
    prompts, a, b = (pa.array(cells, pa.large_string()) for cells in zip(*rows, strict=True))
    numbers = range(len(rows))
    ids = pa.array([f"id{n}" for n in numbers])
    return pa.table([pa.array(numbers, pa.int64()), ids, prompts, a, b], schema=CONVERSATIONS)


def member(model: str, **settings: Any) -> Any:
    return validated({"kind": "classifier", "model": model, "max_length": 64, **settings})


def read(model: str, rows: pa.Table, **settings: Any) -> Reads:
    chosen = member(model, **settings)
    encoder = kind_of(chosen).encoder(chosen, "auto")
    assert encoder
    found = read_sample(encoder, rows, chosen.max_length)
    assert found
    return found


def test_tokens_and_cuts_are_those_of_the_encoder(model: str) -> None:
    short, long = ("why", "yes", "no"), ("why", "yes " * 300, "no " * 300)
    found = read(model, sample(short, long, short, short), truncation="right")
    assert found.rows == 4
    assert found.truncated == 0.25
    assert found.tokens.max() == 64
    assert found.kept["prompt"].mean == 1
    assert found.kept["response_b"].gone == 0.25
    balanced = read(model, sample(short, long, short, short), truncation="balanced")
    assert balanced.kept["response_b"].gone == 0
    assert 0.7 < balanced.kept["response_b"].mean < 1


def test_the_row_is_shown_as_the_model_reads_it(model: str) -> None:
    found = read(model, sample(("why is the sky blue", "air " * 100, "no")), truncation="balanced")
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    text, left_out, end = shortened(tokenizer, found.ids[0], 300)
    assert (left_out, end) == (0, "")
    assert text.startswith("<|begin|>")
    assert "why is the sky blue" in text
    assert "…" in text
    beginning, left_out, end = shortened(tokenizer, found.ids[0], 10)
    assert left_out == len(found.ids[0]) - 20
    assert text.startswith(beginning)
    assert text.endswith(end)


def test_a_beginning_that_is_doubled() -> None:
    assert doubled_start([np.array([0, 0, 5])], {0, 2}) == 0
    assert doubled_start([np.array([0, 5, 0]), np.array([2, 2])], {0, 2}) == 2
    assert doubled_start([np.array([5, 5]), np.array([0])], {0, 2}) is None


def test_quantiles_and_bars() -> None:
    tokens = np.arange(1, 101)
    assert quantiles(tokens) == {"5%": 5, "50%": 50, "95%": 95, "max": 100}
    bars = histogram(tokens)
    assert bars[0][0] == 1
    assert bars[-1][1] == 100
    assert sum(rows for *_, rows in bars) == 100
    assert histogram(np.array([7, 7])) == [(7, 7, 2)]


def test_the_row_that_is_shown_is_the_median_one_and_a_cut_one_where_many_are() -> None:
    tokens = np.array([5, 1, 9, 3, 7])
    assert tokens[shown_row(tokens, np.zeros(5, bool))] == 5
    assert tokens[shown_row(tokens, tokens > 5)] == 7


def test_what_loads_is_what_transformers_has(model: str) -> None:
    settings = member(model)
    assert isinstance(settings, NamesModel)
    found = read_loads(settings, HERE)
    whole = AutoModelForSequenceClassification.from_pretrained(model)
    assert found.architecture == type(whole).__name__
    assert found.parameters == whole.num_parameters()
    assert found.computed == whole.num_parameters() - whole.model.embed_tokens.weight.numel()
    assert (found.quantization, found.dtype, found.weight_bytes) == ("none", "float32", 4 * whole.num_parameters())
    assert "4 heads on 2 keys" in found.attention
    half = read_loads(member(model, layers=1), HERE)
    assert half.blocks == 1
    assert half.parameters < found.parameters


def test_an_adapter_is_counted_and_brings_the_head(backbone: str, adapter: str) -> None:
    found = read_loads(member(backbone, adapter=adapter), HERE)
    assert found.adapter_parameters > 0
    assert found.head == "linear of 3 outputs, the adapter's"


def test_a_gpu_that_is_not_here_is_reckoned_by_its_own_memory(tmp_path: Path, model: str) -> None:
    directory = tmp_path / "large"
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (directory / name).symlink_to(Path(model) / name)
    config = json.loads((Path(model) / "config.json").read_text())
    sizes = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "vocab_size": 128_256}
    config |= {**sizes, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    (directory / "config.json").write_text(json.dumps(config))
    chosen = {}
    for name in ("T4", "L4", "H100"):
        gpu = gpu_named(name)
        assert gpu
        machine = Machine(name, 1, 8, int(gpu.memory * GIB), here=False, gpu=gpu)
        found = read_loads(member(str(directory)), machine)
        chosen[name] = (found.quantization, found.dtype)
        assert memory_of(found, machine, 1, None).fits
    assert chosen == {"T4": ("int8", "float16"), "L4": ("none", "bfloat16"), "H100": ("none", "bfloat16")}
    # Llama 3 8B: 6.98e9 weights in blocks, and 4 * 32 * 4096 operations for each pair of tokens.
    assert operations_per_token(found, np.array([2048])) == pytest.approx(2 * 6.98e9 + 4 * 32 * 4096 * 1024.5, rel=2e-3)
    assert assumed_speed(found, np.array([2048]), gpu).source == "assumed: 40% of H100's peak of 989 TFLOPS"


def test_weights_that_are_not_here_are_neither_needed_nor_guessed(tmp_path: Path, model: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).symlink_to(Path(model) / name)
    found, whole = read_loads(member(str(tmp_path)), HERE), read_loads(member(model), HERE)
    assert (found.parameters, found.weight_bytes) == (whole.parameters, whole.weight_bytes)
    assert found.stored == found.head == "not known before the weights are here"
