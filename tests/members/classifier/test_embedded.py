"""Tokens without an embedding: a few added ones reject their rows, another model's tokenizer is refused."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors

from lmsys_ray.errors import UnscorableError, UsageError
from lmsys_ray.fault_tolerance.row_isolation import compute_rows
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.options import TrainingSettings
from tests.members.classifier.test_encoder import conversations
from tests.tiny_llama import make_backbone, make_model


def add_tokens(directory: Path, *tokens: str, begins: bool = False) -> Path:
    """Adds special tokens behind the 400 ids that the model embeds; the first begins each row where `begins`."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens(list(tokens))
    if begins:
        special = [(tokens[0], tokenizer.token_to_id(tokens[0]))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{tokens[0]} $A", special_tokens=special)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def member(model: Path, **changes: object) -> ClassifierSettings:
    return ClassifierSettings(kind="llama", model=str(model), **changes)


@pytest.mark.parametrize("padding", ["none", "longest"])
def test_rows_that_hold_a_token_without_an_embedding_are_named(tmp_path: Path, padding: str) -> None:
    settings = member(make_model(tmp_path / "model"), padding=padding)
    table = conversations(("p", "a", "b"), ("p", "<image>", "b"), ("p", "b", "a"))
    plain = ClassifierScorer(settings).score(ClassifierEncoder(settings).encode(table.take([0, 2]))).probabilities
    add_tokens(tmp_path / "model", "<image>")
    scorer, encoded = ClassifierScorer(settings), ClassifierEncoder(settings).encode(table)

    def compute(start: int, stop: int) -> np.ndarray:
        return scorer.score(encoded.slice(start, stop - start)).probabilities

    parts, failed = compute_rows(3, compute, lambda start, stop: nullcontext())
    np.testing.assert_allclose(np.concatenate(parts), plain, atol=1e-6)
    assert list(failed) == [1]
    assert failed[1].startswith("a text holds the token of the id 400, where ")
    as_text = ClassifierEncoder(member(tmp_path / "model", special_tokens="text")).encode(table)
    assert np.isfinite(scorer.score(as_text).probabilities).all()


@pytest.mark.parametrize("kind", ["many", "pad", "begins", "ordinary"])
def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(tmp_path: Path, kind: str) -> None:
    changes = {"vocab_size": 399} if kind == "ordinary" else {}
    model = make_model(tmp_path / "model", **changes)
    if kind == "many":
        add_tokens(model, *(f"<{i}>" for i in range(17)))
    elif kind != "ordinary":
        add_tokens(model, "<new>", begins=kind == "begins")
    if kind == "pad":
        file = model / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": "<new>"}))
    with pytest.raises(UsageError, match=r"the tokenizer of .* has ids up to \d+ but the model embeds \d+"):
        ClassifierScorer(member(model))


def test_training_names_a_token_without_an_embedding(tmp_path: Path) -> None:
    base = str(add_tokens(make_backbone(tmp_path / "base"), "<image>"))
    settings = TrainingSettings(input=["rows.csv"], output="out", model=base, special_tokens="parse", max_length=128)
    classifier = build_classifier(settings, torch.device("cpu"))
    with pytest.raises(UnscorableError, match=r"the token of the id 400, where .* embeds 400 ids"):
        classifier.check_embedded(np.array([3, 400], np.int32), base)
    classifier.check_embedded(np.array([3, 399], np.int32), base)
