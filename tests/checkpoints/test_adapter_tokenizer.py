"""An adapter scores with the tokenizer that it was trained with, as PEFT and AutoTokenizer do."""

from pathlib import Path

import numpy as np
import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.checkpoints.test_tokenizer_files import BOS_AND_EOS, with_post_processor
from tests.members.classifier.test_encoder import conversations
from tests.tiny_llama import make_adapter, make_backbone

ROWS = [("", "The quick fox", "sleeps."), ("", "it's 42", "No idea at all, sorry"), ("", "because", "it is read")]


def scored(base: Path, adapter: Path) -> np.ndarray:
    named = {"model": str(base), "adapter": str(adapter), "template": "{response_a}\n\n{response_b}"}
    settings = ClassifierSettings(kind="llama", dtype="float32", **named)
    return ClassifierScorer(settings).score(ClassifierEncoder(settings).encode(conversations(*ROWS))).probabilities


def test_an_adapter_scores_with_the_tokenizer_beside_it(tmp_path: Path) -> None:
    base, adapter = make_backbone(tmp_path / "base"), make_adapter(tmp_path / "adapter")
    ignored = scored(base, adapter)
    AutoTokenizer.from_pretrained(base).save_pretrained(adapter)
    with_post_processor(adapter, **BOS_AND_EOS)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    expected = []
    for _, first, second in ROWS:
        with torch.no_grad():
            logits = model(**tokenizer(f"{first}\n\n{second}", return_tensors="pt")).logits
        expected.append(torch.softmax(logits[0], dim=-1).numpy())
    np.testing.assert_allclose(scored(base, adapter), expected, atol=1e-5)
    assert np.abs(ignored - expected).max() > 0.1
