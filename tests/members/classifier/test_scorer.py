"""Probabilities: what a plain use of transformers gives, however rows are batched."""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import peft
import pyarrow as pa
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from lmsys_ray.engine import devices
from lmsys_ray.engine.runner import Runner
from lmsys_ray.errors import RunError, UnscorableError, UsageError
from lmsys_ray.members.classifier.encoder import ENCODED
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama

LENGTHS = [5, 90, 1, 33, 64, 12, 90, 7, 128, 41]


def encoded(lengths: list[int], seed: int = 0) -> pa.Table:
    """Random rows, numbered from 100 so that a row's number is not its place."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(3, 400, length).tolist() for length in lengths]
    columns = [list(range(100, 100 + len(rows))), rows, lengths]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, ENCODED, strict=True)], schema=ENCODED)


def with_rows(table: pa.Table, rows: list[list[int]]) -> pa.Table:
    field = ENCODED.field("input_ids")
    return table.set_column(1, field, pa.array(rows, field.type))


def scorer(model: str | Path, **changes: object) -> ClassifierScorer:
    return ClassifierScorer(
        ClassifierSettings(kind="llama", model=str(model), **{"max_length": 128, "batch_tokens": 200, **changes})
    )


def one_at_a_time(model: torch.nn.Module, table: pa.Table) -> np.ndarray:
    """Each row alone through the classifier, pooled at its last token by hand."""
    with torch.inference_mode():
        logits = []
        for ids in table["input_ids"].to_pylist():
            hidden = model.model(torch.tensor([ids])).last_hidden_state
            logits.append(model.score(hidden[0, -1]))
        return torch.softmax(torch.stack(logits).float(), -1).numpy()


@pytest.mark.parametrize("padding", ["none", "longest", "max_length"])
@pytest.mark.parametrize("architecture", ["model", "qwen"])
def test_probabilities_equal_one_row_at_a_time(request: pytest.FixtureRequest, architecture: str, padding: str) -> None:
    directory, table = request.getfixturevalue(architecture), encoded(LENGTHS)
    expected = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(directory).eval(), table)
    found = scorer(directory, padding=padding).score(table).probabilities
    assert found.dtype == np.float32
    assert found.shape == (len(LENGTHS), 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.05  # the rows differ, so the comparison says something


@pytest.mark.parametrize("base", ["model", "backbone"])
def test_an_adapter_gives_what_peft_gives(request: pytest.FixtureRequest, adapter: str, base: str) -> None:
    directory, table = request.getfixturevalue(base), encoded(LENGTHS)
    plain = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3)
    reference = peft.PeftModel.from_pretrained(plain, adapter).eval().base_model.model
    found = scorer(directory, adapter=adapter).score(table).probabilities
    np.testing.assert_allclose(found, one_at_a_time(reference, table), atol=1e-5)


QUANTIZED = {
    "int8": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["score"]),
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["score"]),
}


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_bases_keep_the_adapter_beside_them(tmp_path: Path, quantization: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128}  # nf4 packs blocks of 64
    model = tiny_llama.make_model(tmp_path / "model", **sizes)
    adapter = tiny_llama.make_adapter(tmp_path / "adapter", **sizes)
    table = encoded(LENGTHS)
    plain = AutoModelForSequenceClassification.from_pretrained(model, quantization_config=QUANTIZED[quantization])
    for layer in plain.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False  # on some CPUs it would multiply in bfloat16
    reference = peft.PeftModel.from_pretrained(plain, str(adapter)).eval().base_model.model
    made = scorer(model, adapter=str(adapter), quantization=quantization)
    assert any("lora_B" in name for name, _ in made.classifier.backbone.named_parameters())
    # int8 quantizes activations, with outliers looked for in the whole micro-batch: batching shows in the result.
    tolerance = {"int8": 0.05, "nf4": 1e-4}[quantization]
    np.testing.assert_allclose(made.score(table).probabilities, one_at_a_time(reference, table), atol=tolerance)


@pytest.mark.parametrize(("quantization", "most"), [("none", 2), ("int8_dynamic", 2), ("nf4", 1), ("int8", 1)])
def test_only_a_forward_pass_that_changes_no_state_runs_in_several_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str, most: int
) -> None:
    # Two first calls at once rearranged the weights of nf4 twice, and every number was wrong.
    model = tiny_llama.make_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    settings = ClassifierSettings.model_validate(
        {"kind": "llama", "model": str(model), "max_length": 128, "batch_tokens": 128, "quantization": quantization}
    )
    made = ClassifierScorer(settings, threads=2)
    forward, running, seen = made.classifier.backbone.forward, [], []

    def watched(*inputs: object) -> torch.Tensor:
        running.append(None)
        time.sleep(0.02)
        seen.append(len(running))
        hidden: torch.Tensor = forward(*inputs)
        running.pop()
        return hidden

    monkeypatch.setattr(made.classifier.backbone, "forward", watched)
    made.score(encoded(LENGTHS))
    assert max(seen) == most


def test_columns_follow_the_names_of_the_labels(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    config = json.loads((copied / "config.json").read_text())
    names = {"0": "winner_tie", "1": "winner_model_a", "2": "winner_model_b"}
    (copied / "config.json").write_text(json.dumps({**config, "id2label": names, "label2id": {}}))
    table = encoded(LENGTHS)
    np.testing.assert_allclose(
        scorer(copied).score(table).probabilities, scorer(model).score(table).probabilities[:, [1, 2, 0]], atol=1e-6
    )


@pytest.mark.parametrize("architecture", ["model", "qwen"])
def test_rows_that_begin_alike_get_what_they_get_alone(request: pytest.FixtureRequest, architecture: str) -> None:
    directory, plain = request.getfixturevalue(architecture), encoded(LENGTHS)
    stem = list(range(40, 80))
    rows = [stem[: 10 * (place % 5)] + row for place, row in enumerate(plain["input_ids"].to_pylist())]
    rows += [rows[3], rows[4]]
    table = pa.table([range(len(rows)), rows, [len(row) for row in rows]], schema=ENCODED)
    expected = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(directory).eval(), table)
    sharing = scorer(directory, batch_tokens=400).score(table)
    assert np.abs(sharing.probabilities - expected).max() < 1e-5
    assert sharing.usage.tokens == sum(map(len, rows))
    assert sharing.usage.shared > 150
    assert sharing.usage.slots == sharing.usage.tokens - sharing.usage.shared
    assert sharing.usage.padding_share == 0


def test_usage_counts_tokens_slots_and_micro_batches(model: str) -> None:
    table = encoded(LENGTHS)
    packed, padded = (scorer(model, padding=padding).score(table) for padding in ("none", "max_length"))
    assert (packed.usage.rows, packed.usage.tokens, packed.usage.slots) == (10, sum(LENGTHS), sum(LENGTHS))
    assert packed.usage.micro_batches == 3
    assert (padded.usage.tokens, padded.usage.slots, padded.usage.micro_batches) == (sum(LENGTHS), 1280, 10)
    assert packed.tokens is not None
    assert packed.tokens.tolist() == LENGTHS


def test_slices_and_chunks_of_a_table_score_like_the_whole(model: str) -> None:
    table, made = encoded(LENGTHS), scorer(model)
    whole = made.score(table).probabilities
    np.testing.assert_allclose(made.score(table.slice(3, 4)).probabilities, whole[3:7], atol=1e-6)
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    np.testing.assert_allclose(made.score(chunked).probabilities, whole, atol=1e-6)
    assert made.score(table.slice(0, 0)).probabilities.shape == (0, 3)


def test_logits_that_are_not_finite_are_an_error_that_names_the_rows(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    weights = load_file(copied / "model.safetensors")
    weights["model.embed_tokens.weight"][7] = 6e4  # finite in float16, but sums of it are not
    weights["model.layers.0.self_attn.o_proj.weight"] *= 0
    weights["model.layers.0.mlp.down_proj.weight"] *= 5e3
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    table = with_rows(encoded([2, 2, 2]), [[3, 4], [3, 7], [5, 6]])
    with pytest.raises(UnscorableError, match=r"not finite for 1 rows \(101\); set dtype to bfloat16 or float32"):
        scorer(copied, dtype="float16").score(table)


def test_a_model_that_never_gives_finite_logits_is_refused_before_the_first_row(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    weights = load_file(copied / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][:] = 6e4
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="gives logits that are not finite; set dtype to bfloat16 or float32"):
        scorer(copied, dtype="float16")


class SmallRunner(Runner):
    """Runs out of memory above `limit` tokens, as a GPU would."""

    limit = 0
    refused = 0
    error: RuntimeError = torch.cuda.OutOfMemoryError("CUDA out of memory")
    _runs_concurrently = False

    def _forward(
        self, rows: list[np.ndarray], shared: Sequence[int] = (), types: list[np.ndarray] | None = None
    ) -> torch.Tensor:
        if sum(map(len, rows)) > self.limit:
            self.refused += 1
            raise self.error
        return super()._forward(rows, shared, types)


def on_small_device(model: str, limit: int, **changes: object) -> tuple[ClassifierScorer, SmallRunner]:
    settings = {"kind": "llama", "model": model, "max_length": 128, **changes}
    made = ClassifierScorer(ClassifierSettings.model_validate(settings), threads=1)
    runner = SmallRunner(**{f.name: getattr(made._runner, f.name) for f in dataclasses.fields(Runner)})
    runner.limit = limit
    made._runner = runner
    return made, runner


def test_running_out_of_memory_halves_the_budget_for_good(model: str) -> None:
    table, (made, device) = encoded(LENGTHS), on_small_device(model, 150, batch_tokens=1000)
    found = made.score(table)
    np.testing.assert_allclose(found.probabilities, scorer(model).score(table).probabilities, atol=1e-6)
    assert found.usage.rows == len(LENGTHS)  # rows of a refused micro-batch count once
    assert made.batch_tokens <= 150
    refused = device.refused
    assert refused > 0
    again = made.score(table)
    assert device.refused == refused  # it remembers
    assert again.usage.rows == len(LENGTHS)


def test_a_library_without_memory_halves_the_budget_and_another_error_does_not(model: str) -> None:
    table, (made, device) = encoded(LENGTHS), on_small_device(model, 150)
    device.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        made.score(table)
    assert made.batch_tokens == devices.CPU_BATCH_TOKENS
    device.error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    np.testing.assert_allclose(made.score(table).probabilities, scorer(model).score(table).probabilities, atol=1e-6)
    assert made.batch_tokens <= 150
    assert made.notes == []  # float32 does not depend on it


def test_int8_keeps_to_its_micro_batches_and_says_where_it_cannot(model: str) -> None:
    table = encoded([128] * 18)  # 2,304 tokens
    made, device = on_small_device(model, 4096, quantization="int8")
    assert made.batch_tokens == devices.FIXED_BATCH_TOKENS
    assert scorer(model, quantization="int8", batch_tokens=256).batch_tokens == 256  # a part of the run's identity
    before = made.score(table)
    assert made.notes == []
    assert before.usage.micro_batches == 2
    device.limit = 1024
    assert not np.array_equal(made.score(table).probabilities, before.probabilities)
    assert len(made.notes) == 1
    assert made.notes[0].startswith("a GPU ran out of memory; its micro-batches are smaller now")


def test_a_row_that_never_fits_is_an_error_that_says_what_to_do(model: str) -> None:
    made, _ = on_small_device(model, 100)
    with pytest.raises(RunError, match="a row of 128 tokens does not fit in the memory of the GPU; lower max_length"):
        made.score(encoded(LENGTHS))


@pytest.mark.parametrize("padding", ["none", "longest"])
def test_more_cores_change_no_bit(model: str, padding: str) -> None:
    settings = ClassifierSettings.model_validate(
        {"kind": "llama", "model": model, "padding": padding, "batch_tokens": 200}
    )
    table = encoded(LENGTHS)
    alone, together = ClassifierScorer(settings, threads=1), ClassifierScorer(settings, threads=4)
    expected = alone.score(table)
    for _ in range(5):
        found = together.score(table)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert found.usage.micro_batches == expected.usage.micro_batches >= 2


@pytest.mark.parametrize("padding", ["none", "longest"])
@pytest.mark.parametrize(("quantization", "tolerance"), [("int8_dynamic", 0.03), ("fp8", 0.1)])
def test_8_bit_products_move_probabilities_a_little(
    tmp_path: Path, quantization: str, tolerance: float, padding: str
) -> None:
    model = tiny_llama.make_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    adapter = tiny_llama.make_adapter(tmp_path / "adapter", hidden_size=64, intermediate_size=128)
    table = encoded(LENGTHS)
    expected = scorer(model, adapter=str(adapter)).score(table).probabilities
    found = scorer(model, adapter=str(adapter), padding=padding, quantization=quantization).score(table).probabilities
    # The mean: with weights this large, a row whose verdict hangs in the balance moves by much more.
    assert 0 < abs(found - expected).mean() < tolerance
