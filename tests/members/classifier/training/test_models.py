"""Backbones other than Llama, and a base in 4 bits: all train with the same loop and come out as PEFT directories."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, DebertaV2Config, DebertaV2Model

from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.training.building import build_classifier, compute_type
from lmsys_ray.members.classifier.training.examples import encode_examples
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.loop import TrainingLoop
from lmsys_ray.members.classifier.training.options import TrainingSettings
from tests.members.classifier.training.test_loop import conversations, ignore
from tests.tiny_llama import make_backbone, make_tokenizer

CPU = torch.device("cpu")


def settings(base: Path, **changes: object) -> TrainingSettings:
    quick = {"max_length": 128, "epochs": 4, "batch_tokens": 512, "rank": 4, "dtype": "float32"}
    quick |= {"learning_rate": 0.01, "head_learning_rate": 0.01}
    return TrainingSettings(**{"input": ["rows.csv"], "output": "out", "model": str(base), **quick, **changes})


def make_deberta(directory: Path) -> Path:
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=160,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        pad_token_id=1,
    )
    DebertaV2Model(config).save_pretrained(directory)
    make_tokenizer(directory)
    return directory


def train(chosen: TrainingSettings, directory: Path) -> TrainingLoop:
    table, labels = conversations(48)
    rows = encode_examples(table, labels, np.arange(48), chosen.scoring())
    torch.manual_seed(0)
    loop = TrainingLoop(chosen, build_classifier(chosen, CPU), rows, rows, TrainingFiles(directory))
    loop.run(ignore)
    loop.finish()
    return loop


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "deberta-v2"])
def test_any_backbone_trains_and_its_peft_directory_reloads(architecture: str, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    base = make_deberta(folder) if architecture == "deberta-v2" else make_backbone(folder, architecture)
    loop = train(settings(base), tmp_path)
    assert loop.progress.best_loss < loop.files.read_metrics()[0]["train_loss"]
    reloaded = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=1)
    reloaded = PeftModel.from_pretrained(reloaded, loop.files.result).eval()
    row = loop.training.straight[0]
    with torch.no_grad():
        logits = reloaded(input_ids=torch.from_numpy(row[None].astype(np.int64))).logits
    expected = loop.files.load_probabilities(48)[:1]
    np.testing.assert_allclose(torch.softmax(logits, dim=-1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization": "nf4"},
        {"checkpoint_activations": True},
        {"quantization": "nf4", "checkpoint_activations": True},
    ],
)
def test_memory_savers_train_too(change: dict[str, Any], tmp_path: Path) -> None:
    loop = train(settings(make_backbone(tmp_path / "base"), **change), tmp_path)
    assert loop.progress.best_loss < 1.0


def test_float16_on_a_device_that_has_it_scales_the_loss(tmp_path: Path) -> None:
    loop = train(settings(make_backbone(tmp_path / "base"), dtype="float16"), tmp_path)
    assert loop.scaler.is_enabled()
    assert loop.progress.best_loss < 1.0


@pytest.mark.parametrize(
    ("abilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_bfloat16_is_chosen_where_the_cpu_multiplies_in_it(
    abilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert compute_type("auto", CPU) == expected
    assert compute_type("float16", CPU) == torch.float16


def test_a_base_with_an_adapter_beside_its_weights_is_refused(tmp_path: Path) -> None:
    base = make_backbone(tmp_path / "base")
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds an adapter \(adapter_config\.json\)"):
        build_classifier(settings(base), CPU)
