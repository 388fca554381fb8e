"""Sorted and padded rows of the benchmark's own encoder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ray.benchmark.sides import encoder
from lmsys_ray.benchmark.task import BenchmarkTask
from tests.tiny_llama import make_tokenizer


def test_both_sides_compute_what_transformers_computes(tmp_path: Path) -> None:
    task = BenchmarkTask(str(tmp_path), 64, 1024, 4, 1, "wall", [0, 1, 2], 1)
    make_tokenizer(tmp_path / "model")
    texts = ["why?", "the river " * 400, "def add(1, 2)", "air scatters light " * 9]
    rows = pa.table({"row": range(4), "prompt": texts, "response_a": ["yes"] * 4, "response_b": ["no"] * 4})
    encoder.save_encoder_rows(rows, str(tmp_path / "model"), 4, task)
    lists = pq.read_table(task.encoder_file)["input_ids"].to_pylist()
    assert max(map(len, lists)) == 512
    model = AutoModelForSequenceClassification.from_pretrained(task.encoder).eval()
    assert sum(weight.numel() for weight in model.bert.encoder.parameters()) == 10_646_784  # six layers of MiniLM
    with torch.inference_mode():
        expected = np.concatenate([model(torch.tensor([ids])).logits.softmax(1).numpy() for ids in lists])
    padded, ordered = (encoder.load(task, name)() for name in ("padded", "sorted"))
    for found in (padded, ordered):
        np.testing.assert_allclose(found["outputs"], expected, atol=1e-4)
        assert found["tokens"] == sum(map(len, lists))
    assert expected.std(axis=0).max() > 0.01  # rows differ, or nothing would be compared
    assert padded["computed"] == 4 * 512
    lengths = sorted(map(len, lists), reverse=True)
    assert ordered["computed"] < 512 * 2 + lengths[2] * 2 + 1
