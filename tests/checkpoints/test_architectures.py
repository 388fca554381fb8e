"""Every classifier of transformers is scored as transformers scores it, or refused before the first row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from tests import tiny_llama
from tests.checkpoints.architectures import CONFIGS, PACKED, PADDINGS, VARIANTS, is_decoder, random_model, tiny_config
from tests.members.classifier.test_scorer import LENGTHS, encoded, scorer


def saved(name: str, directory: Path) -> Path:
    """Saves a tiny model of an architecture or a variant; of what is no decoder its config alone."""
    architecture, changes = VARIANTS.get(name, (name, {}))
    if is_decoder(architecture):
        random_model(tiny_config(architecture, **changes)).save_pretrained(directory)
    else:
        CONFIGS[architecture](num_labels=3).save_pretrained(directory)
    tiny_llama.make_tokenizer(directory)
    return directory


@torch.inference_mode()
def by_transformers(directory: Path, rows: list[list[int]]) -> np.ndarray:
    """Each row alone, without padding, pooled by transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    logits = [model(input_ids=torch.tensor([row]), use_cache=False).logits for row in rows]
    return torch.softmax(torch.cat(logits), -1).numpy()


def scorer_or_refusal(directory: Path, padding: str) -> ClassifierScorer | str:
    try:
        return scorer(directory, padding=padding)
    except UsageError as refusal:
        return str(refusal)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONFIGS, *VARIANTS])
def test_it_is_scored_as_by_transformers_or_refused(name: str, tmp_path: Path) -> None:
    directory, table = saved(name, tmp_path / "model"), encoded(LENGTHS)
    for padding in PADDINGS:
        found = scorer_or_refusal(directory, padding)
        if isinstance(found, str):
            assert found.startswith("model: ")
            assert "\n" not in found
            assert name not in PACKED
            continue
        expected = by_transformers(directory, table["input_ids"].to_pylist())
        np.testing.assert_allclose(found.score(table).probabilities, expected, atol=1e-5)
        assert np.ptp(expected, axis=0).min() > 0.05  # the rows differ, so the comparison says something
        assert found.facts["largest_logit_difference"] <= found.facts["allowed_logit_difference"]
        if padding == "none":
            assert (found.facts["padding"] == "none") == (name in PACKED)
            assert bool(found.notes) == (name not in PACKED)
