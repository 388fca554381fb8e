"""Models that must not be believed are refused with a sentence that says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsys_ray.checkpoints import checks
from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine import devices
from lmsys_ray.engine import weight_counts as weights
from lmsys_ray.engine.classifier import Classifier
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama

Weights = dict[str, torch.Tensor]
HEAD = "base_model.model.score.weight"
LORA_B = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"


def load(model: str | Path, adapter: str | Path | None = None, **changes: object) -> Classifier:
    named = {"model": str(model), "adapter": str(adapter) if adapter else None}
    return load_classifier(ClassifierSettings(kind="llama", **{**named, **changes}), Wanted.three_labels())


def with_weights(source: str, target: Path, file: str, change: Callable[[Weights], object]) -> Path:
    """Copies a directory and changes the tensors of one of its files."""
    shutil.copytree(source, target)
    weights = load_file(target / file)
    change(weights)
    save_file(weights, target / file, metadata={"format": "pt"})
    return target


def with_json(source: str | Path, target: Path, file: str, **changes: object) -> Path:
    """Copies a directory and changes entries of one of its JSON files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **changes}))
    return target


def zero_lora_b(weights: Weights) -> None:
    weights.update({key: torch.zeros_like(value) for key, value in weights.items() if "lora_B" in key})


ADAPTER_DAMAGE: list[tuple[Callable[[Weights], object], str]] = [
    (lambda w: w.pop(HEAD), "brings no head"),
    (lambda w: w.pop(LORA_B), f"lacks {LORA_B}"),
    (lambda w: w.update({"base_model.model.extra.lora_A.weight": torch.ones(1)}), "has base_model.model.extra"),
    (lambda w: w.update({HEAD: torch.ones(2, 32)}), "has the shape [2, 32] where the model needs [3, 32]"),
    (lambda w: w.update({HEAD: torch.ones(3, 32, dtype=torch.int32)}), "holds torch.int32"),
    (lambda w: w.update({HEAD: torch.full((3, 32), float("nan"))}), "holds NaN or infinity"),
    (zero_lora_b, "every lora_B"),
    (lambda w: w.update({HEAD: torch.zeros(3, 32)}), "the head of"),
]


@pytest.mark.parametrize(("damage", "sentence"), ADAPTER_DAMAGE)
def test_a_damaged_adapter_is_refused(
    backbone: str, adapter: str, copied: Path, damage: Callable[[Weights], object], sentence: str
) -> None:
    damaged = with_weights(adapter, copied, "adapter_model.safetensors", damage)
    with pytest.raises(UsageError) as error:
        load(backbone, damaged)
    assert str(error.value).startswith("adapter: ")
    assert sentence in str(error.value)


def test_an_adapter_without_a_head_fits_a_model_that_has_one(model: str, adapter: str, copied: Path) -> None:
    headless = with_weights(adapter, copied, "adapter_model.safetensors", lambda w: w.pop(HEAD))
    head = load_file(f"{model}/model.safetensors")["score.weight"]
    assert torch.equal(load(model, headless).head.weight, head)


def test_the_head_of_the_adapter_replaces_that_of_the_model(model: str, adapter: str) -> None:
    head = load_file(f"{adapter}/adapter_model.safetensors")[HEAD]
    assert torch.equal(load(model, adapter).head.weight, head)


def test_a_model_without_a_head_and_without_an_adapter_is_refused(backbone: str) -> None:
    with pytest.raises(UsageError, match=r"^model: .* has no head \(score\.weight\), so its answers would be random"):
        load(backbone)


def test_an_adapter_of_another_architecture_is_refused(tmp_path: Path, adapter: str) -> None:
    other = tiny_llama.make_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(UsageError, match=r"^adapter: .* has the shape .* made for another model"):
        load(other, adapter)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task_type": "CAUSAL_LM"}, "not for classification"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, "only LoRA is supported"),
        ({"target_modules": ["query_key_value"]}, "made for another"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    backbone: str, adapter: str, copied: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        load(backbone, with_json(adapter, copied, "adapter_config.json", **changes))


def test_an_adapter_of_pickled_weights_is_refused(backbone: str, adapter: str, copied: Path) -> None:
    shutil.copytree(adapter, copied)
    torch.save(load_file(copied / "adapter_model.safetensors"), copied / "adapter_model.bin")
    (copied / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"^adapter: .* holds a pickle \(adapter_model\.bin\), which could run code"):
        load(backbone, copied)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda w: w.pop("model.norm.weight"), r"lacks weights: model\.norm\.weight"),
        (lambda w: w.update({"model.other.weight": torch.ones(1)}), r"holds unknown weights: model\.other\.weight"),
        (lambda w: w.update({"model.norm.weight": torch.ones(31)}), r"has misshapen weights: model\.norm\.weight"),
        (lambda w: w["model.norm.weight"].fill_(float("inf")), r"model\.norm\.weight of .* holds NaN or infinity"),
    ],
)
def test_a_damaged_model_is_refused(
    model: str, copied: Path, damage: Callable[[Weights], object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=f"^model: .*{sentence}"):
        load(with_weights(model, copied, "model.safetensors", damage))


def test_a_language_models_own_head_is_no_fault(model: str, copied: Path) -> None:
    classifier = load(
        with_weights(model, copied, "model.safetensors", lambda w: w.update({"lm_head.weight": torch.ones(400, 32)}))
    )
    assert classifier.columns == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pad_token_id": 2}, "the pad token of .* is 2 in config.json but 1 in the tokenizer"),
        ({"id2label": {"0": "good", "1": "bad", "2": "ugly"}}, "the labels of .* are good, bad, ugly"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "has 2 labels where a, b and tie are needed"),
        ({"model_type": "no_such_model"}, "is not a model that transformers knows"),
        ({"model_type": "clip"}, "transformers has no sequence classifier for clip"),
        ({"vocab_size": 300}, "ids up to .* but the model embeds 300"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(
    model: str, copied: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=f"^model: .*{sentence}"):
        load(with_json(model, copied, "config.json", **changes))


def test_more_tokens_than_positions_are_refused(model: str, copied: Path) -> None:
    with pytest.raises(UsageError, match="max_length: 2048 exceeds the 512 positions"):
        load(with_json(model, copied, "config.json", max_position_embeddings=512))


def test_a_pad_token_that_only_one_side_names_is_no_fault(model: str, copied: Path) -> None:
    assert load(with_json(model, copied, "config.json", pad_token_id=None)).pad_id == 1


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["LABEL_0", "LABEL_1", "LABEL_2"], [0, 1, 2]),
        (["winner_model_a", "winner_model_b", "winner_tie"], [0, 1, 2]),
        (["tie", "B", "A"], [2, 1, 0]),
        (["model_b", "draw", "model_a"], [2, 0, 1]),
    ],
)
def test_columns_follow_the_names_of_the_classes(labels: list[str], columns: list[int]) -> None:
    assert checks.class_columns(dict(enumerate(labels)), "x") == columns


def test_a_name_that_is_nowhere_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UsageError, match=r"^model: no/such-model is not on this machine and the Hugging Face hub did not"
    ):
        load("no/such-model")
    with pytest.raises(UsageError, match=r"^model: /no/such/directory is not on this machine"):
        load("/no/such/directory")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match="is a file but not a GGUF file"):
        load(file)


def test_quantization_leaves_the_head_alone(model: str) -> None:
    loaded = load(model, quantization="int8")
    assert loaded.head.weight.dtype == torch.float32
    assert loaded.backbone.backbone.layers[0].mlp.up_proj.weight.dtype == torch.int8


@pytest.mark.parametrize(
    ("parameters", "memory", "expected"),
    [
        (135_000_000, 0, "none"),
        (8_000_000_000, 80 << 30, "none"),
        (8_000_000_000, 15 << 30, "int8"),
        (8_000_000_000, 2 * 15 << 30, "none"),
        (8_000_000_000, 8 << 30, "nf4"),
        (70_000_000_000, 8 << 30, "nf4"),
    ],
)
def test_quantization_is_chosen_by_what_fits(parameters: int, memory: int, expected: str) -> None:
    assert devices.choose_quantization("auto", weights.Weights(parameters, 0), memory) == expected
    assert devices.choose_quantization("int8", weights.Weights(parameters, 0), memory) == "int8"
