"""A model that is not computed as transformers computes it is padded, or refused, before the first row."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ray.checkpoints import self_check, substitutes
from lmsys_ray.checkpoints.loading import load_classifier, load_model
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.linear.quantized import Int8Linear
from lmsys_ray.engine.models import llama as decoder
from lmsys_ray.engine.runner import Runner
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama
from tests.checkpoints.architectures import random_model, tiny_config
from tests.members.classifier.test_scorer import LENGTHS, encoded, one_at_a_time, scorer


def member(model: str | Path, **changes: object) -> ClassifierSettings:
    return ClassifierSettings.model_validate({"kind": "llama", "model": str(model), "max_length": 128, **changes})


def test_probe_rows_are_unequal_share_a_beginning_and_leave_special_tokens_out() -> None:
    rows = self_check.probe_rows(400, 2048, {0, 1, 2}, window=200)
    lengths = [len(row) for row in rows]
    assert len(set(lengths)) == len(lengths)
    assert max(lengths) > 200
    assert rows[1][:24].tolist() == rows[2][:24].tolist()
    assert rows[1][24:].tolist() != rows[2][24:40].tolist()
    assert not set(np.concatenate(rows)) & {0, 1, 2}
    assert max(len(row) for row in self_check.probe_rows(400, 16, set())) == 16
    assert [row.tolist() for row in self_check.probe_rows(400, 2048, {0, 1, 2}, 200)] == [row.tolist() for row in rows]


def test_a_fault_in_the_packed_decoder_is_found_and_rows_are_padded(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = decoder.rotate_pairs_
    monkeypatch.setattr(decoder, "rotate_pairs_", lambda heads, angles: right(heads, angles.conj()))
    found = scorer(model)
    assert found.facts["padding"] == "longest"
    (note,) = found.notes
    assert note.startswith("padding none moves a logit by ")
    assert note.endswith("; padding longest is used")
    table = encoded(LENGTHS)
    expected = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(model).eval(), table)
    np.testing.assert_allclose(found.score(table).probabilities, expected, atol=1e-5)


def test_a_fault_that_rounding_to_int8_could_hide_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tiny_llama.make_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    assert scorer(directory, quantization="int8").facts["padding"] == "none"
    right = attention.row_by_row
    monkeypatch.setattr(attention, "row_by_row", lambda query, *others: right(query * 1.01, *others))
    found = scorer(directory, quantization="int8")
    assert found.facts["padding"] == "longest"
    assert found.notes[0].startswith("padding none moves a logit by ")


def test_int8_with_worse_rounding_than_that_of_each_row_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_llama.make_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    logits = Runner.logits

    def wrong_when_rounded(self: Runner, *given: object) -> tuple[torch.Tensor, object]:
        found, usage = logits(self, *given)
        unrounded = "forward" in substitutes.int8_layers(self.classifier.backbone)[0].__dict__
        return found + (0 if unrounded else 5), usage

    monkeypatch.setattr(Runner, "logits", wrong_when_rounded)
    with pytest.raises(UsageError, match=r"moves a logit by 5.* by rounding to int8"):
        scorer(directory, quantization="int8")


def test_a_fault_in_every_form_is_refused_with_the_largest_difference(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = self_check.difference
    monkeypatch.setattr("lmsys_ray.checkpoints.row_form.difference", lambda found, wanted: right(found + 1, wanted))
    with pytest.raises(UsageError) as error:
        scorer(model)
    assert str(error.value).startswith(
        f"model: {model} does not give here what it gives in transformers (padding none "
    )
    assert "moves a logit by 1" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_that_see_each_other_are_found_in_every_type(
    qwen: str, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    def leaking(
        query: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], *others: object
    ) -> torch.Tensor:
        values = [values[0], *(value + 0.1 * before[-1] for before, value in pairwise(values))]
        return right(query, keys, values, *others)

    right = attention.row_by_row
    monkeypatch.setattr(attention, "row_by_row", leaking)
    found = scorer(qwen, dtype=dtype)
    assert found.facts["padding"] == "longest"
    assert "moves a logit by" in found.notes[0] or "lets other rows move a logit by" in found.notes[0]


def test_what_is_allowed_is_some_rounding(model: str) -> None:
    wanted = load_classifier(member(model), Wanted.three_labels()).expected
    largest = wanted.logits.abs().max().item()
    assert 1e-5 < wanted.allowed < 1e-3 * (1 + largest)
    nothing = torch.full_like(wanted.logits, float("nan"))
    assert self_check.difference(nothing, wanted.logits) == float("inf")
    assert self_check.difference(wanted.logits, nothing) == 0


@pytest.mark.parametrize("quantization", ["int8_dynamic", "fp8", "int8", "nf4"])
def test_quantized_models_are_compared_with_like(tmp_path: Path, quantization: str) -> None:
    directory = tiny_llama.make_model(tmp_path / "model", hidden_size=64, intermediate_size=128)
    found = scorer(directory, quantization=quantization)
    assert found.facts["padding"] == "none"
    wanted = found.classifier.expected
    exact = load_classifier(member(directory), Wanted.three_labels()).expected
    assert (wanted.logits - exact.logits).abs().max() > 1e-3  # what quantizing itself does is no fault of packing


def test_looking_at_a_model_leaves_it_as_it_was(model: str) -> None:
    loaded = load_model(member(model), Wanted.three_labels())
    row = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        before = loaded.model(row).logits
        rounded = self_check.expected(loaded.model, model, 128, Int8Linear, rounds=True)
        assert torch.equal(loaded.model(row).logits, before)
    plain = self_check.expected(loaded.model, model, 128, None, rounds=False)
    assert (rounded.logits - plain.logits).abs().max() > 1e-3


BOTH_WAYS = {"gemma3_text": {"use_bidirectional_attention": True}, "llama": {"is_causal": False}}


@pytest.mark.parametrize("architecture", BOTH_WAYS)
@pytest.mark.parametrize("padding", ["none", "longest", "max_length"])
def test_models_that_look_both_ways_are_padded_and_masked(architecture: str, padding: str, tmp_path: Path) -> None:
    random_model(tiny_config(architecture, **BOTH_WAYS[architecture])).save_pretrained(tmp_path)
    tiny_llama.make_tokenizer(tmp_path)
    found, table = scorer(tmp_path, padding=padding), encoded(LENGTHS)
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(found.score(table).probabilities, one_at_a_time(reference, table), atol=1e-5)
    assert found.facts["padding_masked"]
    assert "would let tokens see those of other rows, or padding" in found.notes[0]


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 48,
}


@pytest.mark.parametrize("batch_tokens", [64, 200, 4096])
@pytest.mark.parametrize("padding", ["none", "longest", "max_length"])
@pytest.mark.parametrize("architecture", ["phi3", "llama"])
def test_rows_on_each_side_of_longrope_have_their_own_angles(
    architecture: str, padding: str, batch_tokens: int, tmp_path: Path
) -> None:
    config = tiny_config(architecture, rope_parameters=LONGROPE)
    random_model(config).save_pretrained(tmp_path)
    tiny_llama.make_tokenizer(tmp_path)
    table = encoded([5, 47, 48, 49, 128, 30, 1])
    found = scorer(tmp_path, padding=padding, batch_tokens=batch_tokens)
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(found.score(table).probabilities, one_at_a_time(reference, table), atol=1e-5)
