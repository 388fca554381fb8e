"""Which token of a row is pooled: as transformers does, or the last one where an adapter was trained so here."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from lmsys_ray.engine.pooling import cut_rows, pooled_ends, pooled_positions
from tests.members.classifier.test_scorer import encoded, one_at_a_time, scorer, with_rows

PAD = 1
ROWS = [[5, 9, PAD], [PAD, 7, PAD, PAD], [PAD, PAD], [8, 9, 10], [PAD, 11], [12, PAD, *range(20, 60), PAD, PAD]]


def as_transformers_pools(rows: list[list[int]], directory: str, adapter: str | None = None) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3).eval()
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row])).logits for row in rows]
    return torch.softmax(torch.cat(logits), -1).numpy()


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=6), st.sampled_from([1, None])
)
def test_pooled_token_is_the_last_that_is_no_pad(rows: list[list[int]], pad: int | None) -> None:
    others = [[place for place, token in enumerate(row) if token != pad] for row in rows]
    expected = [places[-1] if places else 0 for places in others]
    arrays = [np.array(row, np.int32) for row in rows]
    assert pooled_positions(arrays, pad).tolist() == expected
    flat, starts = np.concatenate(arrays), np.cumsum([0, *map(len, rows)])
    cut, cut_starts = cut_rows(flat, starts, pooled_ends(flat, starts, pad))
    kept = [cut[start:stop].tolist() for start, stop in pairwise(cut_starts)]
    assert kept == [row[: place + 1] for row, place in zip(rows, expected, strict=True)]


@pytest.mark.parametrize("padding", ["none", "longest", "max_length"])
@pytest.mark.parametrize("architecture", ["model", "qwen"])
def test_rows_that_end_in_the_pad_token_are_pooled_as_by_transformers(
    request: pytest.FixtureRequest, architecture: str, padding: str
) -> None:
    directory = request.getfixturevalue(architecture)
    expected = as_transformers_pools(ROWS, directory)
    table = with_rows(encoded([len(row) for row in ROWS]), ROWS)
    np.testing.assert_allclose(scorer(directory, padding=padding).score(table).probabilities, expected, atol=1e-5)
    at_the_last = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(directory).eval(), table)
    assert np.abs(at_the_last - expected).max() > 0.1  # what pooling the last token would give


@pytest.mark.parametrize(
    ("noted", "last"), [({"pooling": "last_token"}, True), ({"text": "json"}, True), (None, False)]
)
def test_an_adapter_is_pooled_as_it_was_trained(
    noted: dict[str, str] | None, last: bool, backbone: str, adapter: str, tmp_path: Path
) -> None:
    # A scoring.json is written by train_lora.py alone, at first without the key.
    directory = str(shutil.copytree(adapter, tmp_path / "adapter"))
    if noted is not None:
        Path(directory, "scoring.json").write_text(json.dumps(noted))
    table = with_rows(encoded([len(row) for row in ROWS]), ROWS)
    plain = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=3)
    reference = peft.PeftModel.from_pretrained(plain, adapter).eval().base_model.model
    pooled = one_at_a_time(reference, table) if last else as_transformers_pools(ROWS, backbone, adapter)
    np.testing.assert_allclose(scorer(backbone, adapter=directory).score(table).probabilities, pooled, atol=1e-5)
