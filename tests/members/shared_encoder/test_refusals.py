"""What a shared encoder refuses, in one sentence each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from lmsys_ray.errors import UsageError
from lmsys_ray.members.shared_encoder.kind import KIND
from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer
from tests.members.shared_encoder.test_scoring import member
from tests.tiny_encoders import DIM, make_shared_encoder
from tests.tiny_llama import make_backbone


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_shared_encoder(tmp_path / "model")


def head(weight: tuple[int, ...] = (3, 2 * DIM), bias: tuple[int, ...] = (3,)) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(weight), "bias": torch.randn(bias)}


def refusal(model: Path, **changes: Any) -> str:
    with pytest.raises(UsageError) as refused:
        SharedEncoderScorer(KIND.preflight(member(model, **changes), "members.it"))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (head(weight=(3, DIM)), "holds bias [3] and weight [3, 32] where bias [3] and weight [3, 64] are needed"),
        (head(bias=(2,)), "holds bias [2]"),
        ({"weight": head()["weight"]}, "holds weight [3, 64] where"),
        ({**head(), "bias": torch.tensor([0.0, float("nan"), 0.0])}, "holds NaN or infinity (bias)"),
        ({**head(), "weight": torch.zeros(3, 2 * DIM)}, "is zero, so all rows would be equal"),
        ({**head(), "weight": torch.ones(3, 2 * DIM, dtype=torch.int64)}, "not stored in a floating-point type"),
    ],
)
def test_a_head_that_does_not_fit(model: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    save_file(tensors, model / "head.safetensors")
    assert said in refusal(model)


def test_an_encoder_without_a_head(model: Path) -> None:
    (model / "head.safetensors").unlink()
    assert "holds no head.safetensors, so its answers would be random" in refusal(model)


def test_a_damaged_head(model: Path) -> None:
    (model / "head.safetensors").write_bytes(b"not a head at all")
    assert "head.safetensors of" in refusal(model)
    assert "restore it" in refusal(model)


def test_a_decoder(tmp_path: Path) -> None:
    decoder = make_backbone(tmp_path / "decoder")
    save_file(head(), decoder / "head.safetensors")
    assert "is a decoder where an encoder is needed" in refusal(decoder)


def test_custom_code(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    changed = {**config, "auto_map": {"AutoModel": "modeling.Own"}}
    (model / "config.json").write_text(json.dumps(changed))
    assert "is computed by custom code" in refusal(model)


def without_a_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in weights.items() if "layer.1.output" not in key}


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    key = next(key for key in weights if "layer.1.output.dense.weight" in key)
    return {**weights, key: weights[key] * float("nan")}


def with_a_further_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    more = {key.replace("layer.1.", "layer.2."): value.clone() for key, value in weights.items() if "layer.1." in key}
    return {**weights, **more}


@pytest.mark.parametrize(
    ("change", "said"),
    [(without_a_layer, "lacks weights"), (with_nan, "holds NaN"), (with_a_further_layer, "holds unknown weights")],
)
def test_weights_that_are_not_whole(model: Path, change: Callable[[Any], Any], said: str) -> None:
    file = model / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    assert said in refusal(model)


def test_an_encoder_with_the_head_of_its_pretraining_is_taken(model: Path) -> None:
    file = model / "model.safetensors"
    weights = {f"bert.{key}": value for key, value in load_file(file).items() if not key.startswith("pooler.")}
    save_file({**weights, "cls.predictions.bias": torch.zeros(400)}, file, metadata={"format": "pt"})
    SharedEncoderScorer(member(model))


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ({"template": "{prompt} {response}"}, "was trained with template = '{prompt} {response}', this member has"),
        ({"preset": "kerasnlp"}, "was trained with preset = 'kerasnlp', this member has None"),
        ({"turns": "last"}, "was trained with turns = 'last', this member has 'all'"),
        ({"truncation": "right"}, "was trained with truncation = 'right'"),
        ({"dtype": "int4"}, "has dtype = 'int4'; restore it"),
        ({"text": "notebook"}, "is a classifier's, trained with text = 'notebook'"),
    ],
)
def test_a_member_that_reads_otherwise_than_its_training(model: Path, note: dict[str, Any], said: str) -> None:
    (model / "scoring.json").write_text(json.dumps(note))
    assert said in refusal(model)


def test_the_length_may_differ_unless_padding_counts(model: Path) -> None:
    (model / "scoring.json").write_text(json.dumps({"preset": None, "max_length": 64}))
    SharedEncoderScorer(member(model, max_length=96))
    (model / "scoring.json").write_text(json.dumps({"preset": "kerasnlp", "turns": "first", "max_length": 64}))
    assert "was trained with max_length = 64" in refusal(model, preset="kerasnlp", max_length=96)


@pytest.mark.parametrize("template", ["{prompt}", "{response} {response}", "{prompt} {response_a} {response}"])
def test_a_template_that_is_not_of_one_response(model: Path, template: str) -> None:
    assert refusal(model, template=template).startswith("members.it: template: ")


@pytest.mark.parametrize(
    "changes", [{"preset": "kerasnlp", "turns": "all"}, {"preset": "kerasnlp", "padding": "longest"}, {"layers": 1}]
)
def test_settings_that_contradict_each_other(model: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        member(model, **changes)
