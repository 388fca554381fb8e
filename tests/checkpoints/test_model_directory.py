"""A model directory that is damaged, or means another computation, is refused with one sentence."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lmsys_ray.checkpoints import checks
from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.sources import WEIGHT_FILES
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests.members.classifier.test_scorer import encoded, one_at_a_time, scorer

ROWS = encoded([5, 60, 30])


@pytest.fixture(scope="module")
def undamaged(model: str) -> np.ndarray:
    return one_at_a_time(AutoModelForSequenceClassification.from_pretrained(model).eval(), ROWS)


def sentence(directory: Path, **changes: object) -> str:
    """Returns the one sentence that a directory is refused with."""
    with pytest.raises(UsageError) as error:
        load_classifier(
            ClassifierSettings(kind="llama", model=str(directory), **{"max_length": 128, **changes}),
            Wanted.three_labels(),
        )
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 800
    return text


def with_config(model: str, target: Path, changes: dict[str, Any]) -> Path:
    shutil.copytree(model, target)
    content = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(content))
    return target


def rope(**parameters: object) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


CANNOT_BE_BUILT: list[dict[str, Any]] = [
    *({"hidden_size": value} for value in ("abc", -32, 0, None, 33, 32.5, [32])),
    *({"num_attention_heads": value} for value in (5, 0, -4, "4")),
    *({"num_key_value_heads": value} for value in (3, 0, -2)),
    *({"head_dim": value} for value in (0, -8, 7, 16)),
    *({"num_hidden_layers": value} for value in (0, -1, 1, 3, "2")),
    *({"vocab_size": value} for value in (0, -1, "a", 401)),
    *({"hidden_act": value} for value in ("nope", 3, None)),
    *({"dtype": value} for value in ("float99", 3)),
    *(rope(rope_type=kind) for kind in ("nope", "linear", "llama3", "yarn")),
    *(rope(rope_theta=theta) for theta in (0, -5.0, "a", None, float("nan"))),
    *(rope(rope_type="linear", factor=factor) for factor in (0, -2.0, "a")),
    *({"rms_norm_eps": value} for value in ("a", -1.0, None, float("nan"))),
    *({"model_type": value} for value in ("nope", None, 3, "mistral", "bert", "t5", ["llama"])),
    *({"quantization_config": value} for value in (3, {}, {"quant_method": "nope"})),
    *({"id2label": value} for value in ({"x": "a"}, ["a", "b", "tie"], {}, 3)),
    *({"num_labels": value} for value in (2, "a")),
    *({"attention_bias": value} for value in (True, "yes")),
    *({"pad_token_id": value} for value in ("a", -1, 4000, [1])),
    *({"architectures": value} for value in ("LlamaForSequenceClassification", [3])),
    {"layer_types": ["x"]},
    {"attn_implementation": "nope"},
    {"text_config": {"a": 1}},
]


@pytest.mark.parametrize("changes", CANNOT_BE_BUILT, ids=str)
def test_a_config_that_describes_no_such_model_is_refused(model: str, copied: Path, changes: dict[str, Any]) -> None:
    assert sentence(with_config(model, copied, changes)).startswith("model: ")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", "{}", "\xff", "[" * 100000, '{"model_type": "llama"}'])
def test_a_config_that_is_no_mapping_of_settings_is_refused(model: str, copied: Path, content: str) -> None:
    shutil.copytree(model, copied)
    (copied / "config.json").write_bytes(content.encode("latin1"))
    assert sentence(copied).startswith("model: ")


def test_code_beside_weights_that_transformers_knows_is_not_needed(
    model: str, copied: Path, undamaged: np.ndarray
) -> None:
    classes = {"AutoConfig": "configuration_llama.LlamaConfig", "AutoModelForCausalLM": "modeling.LlamaForCausalLM"}
    known = with_config(model, copied, {"auto_map": classes})
    np.testing.assert_allclose(scorer(known).score(ROWS).probabilities, undamaged, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"problem_type": "regression"}, "was trained for the problem_type regression"),
        ({"problem_type": "multi_label_classification"}, "was trained for the problem_type multi_label_classification"),
        ({"auto_map": {"AutoModelForSequenceClassification": "judge.Judge"}}, "is computed by custom code (auto_map"),
        (
            {"auto_map": {"AutoModelForCausalLM": "modeling_judge.JudgeForCausalLM"}},
            "is computed by custom code (auto_",
        ),
        ({"auto_map": {"AutoModel": "modeling_mistral.MistralModel"}}, "is computed by custom code (auto_map"),
        (
            {"architectures": ["JudgeForSequenceClassification"]},
            "JudgeForSequenceClassification, which transformers does",
        ),
        ({"architectures": ["MistralForSequenceClassification"]}, "does not have for llama"),
        ({"architectures": ["LlamaForJudging"]}, "LlamaForJudging, which transformers does not have for llama"),
        ({"id2label": {"1": "a", "2": "b", "3": "tie"}}, "number its labels from 0"),
        ({"num_labels": 2}, "has num_labels = 2 but 3 labels in id2label"),
        (
            {"id2label": {"0": "tie", "1": "b", "2": "a"}, "label2id": {"a": 0, "b": 1, "tie": 2}},
            "label2id and id2label of",
        ),
        ({"label2id": {"a": 0, "b": 1, "tie": 2}}, "label2id and id2label of"),
        (rope(rope_type="nope"), "(unknown: 'nope')"),
        ({"hidden_size": "abc"}, "Field 'hidden_size' expected int, got str"),
        (
            {"quantization_config": {"quant_method": "torchao"}},
            "needs packages that are not installed; run pip install torchao",
        ),
    ],
)
def test_a_config_that_means_another_computation_is_refused(
    model: str, copied: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in sentence(with_config(model, copied, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "single_label_classification"},
        {"architectures": None},
        {"architectures": ["LlamaForCausalLM"]},
        {"dtype": None},
        {"id2label": {"0": "a", "1": "b", "2": "tie"}},
        {"id2label": {"0": "a", "1": "b", "2": "tie"}, "label2id": {"a": 0, "b": 1, "tie": 2}},
    ],
)
def test_a_config_that_says_the_same_is_no_fault(
    model: str, copied: Path, changes: dict[str, Any], undamaged: np.ndarray
) -> None:
    np.testing.assert_allclose(
        scorer(with_config(model, copied, changes)).score(ROWS).probabilities, undamaged, atol=1e-6
    )


def sharded(model: str, target: Path) -> Path:
    """Copies a model with its weights in several files."""
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForSequenceClassification.from_pretrained(model).save_pretrained(target, max_shard_size="40KB")
    assert len(list(target.glob("*.safetensors"))) > 1
    return target


@pytest.mark.parametrize("layout", ["one file", "shards"])
def test_files_that_were_cut_are_refused(model: str, tmp_path: Path, undamaged: np.ndarray, layout: str) -> None:
    whole = sharded(model, tmp_path / "whole") if layout == "shards" else Path(model)
    names = [path.name for path in whole.iterdir() if not path.name.startswith("tokenizer")]
    for name in names:
        content = (whole / name).read_bytes()
        for length in (0, 9, len(content) // 10, len(content) // 2, len(content) - 2):
            damaged = tmp_path / f"{name}-{length}"
            shutil.copytree(whole, damaged)
            (damaged / name).write_bytes(content[:length])
            assert sentence(damaged).startswith("model: "), (name, length)
        missing = tmp_path / f"without-{name}"
        shutil.copytree(whole, missing, ignore=shutil.ignore_patterns(name))
        assert sentence(missing).startswith("model: "), name


@pytest.mark.parametrize(
    "index", ['{"metadata": {}}', "[]", '{"weight_map": []}', '{"weight_map": {"score.weight": "none.safetensors"}}']
)
def test_an_index_of_nothing_is_refused(model: str, tmp_path: Path, index: str) -> None:
    damaged = sharded(model, tmp_path / "shards")
    (damaged / "model.safetensors.index.json").write_text(index)
    assert sentence(damaged).startswith("model: ")


@pytest.mark.parametrize("seed", range(3))
def test_bits_that_flip_in_the_header_of_the_weights_change_no_number(
    model: str, tmp_path: Path, undamaged: np.ndarray, seed: int
) -> None:
    generator, whole = random.Random(seed), (Path(model) / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    shutil.copytree(model, tmp_path / "copy")
    refused = 0
    for _ in range(10):
        damaged, place = bytearray(whole), generator.randrange(header)
        damaged[place] ^= 1 << generator.randrange(8)
        (tmp_path / "copy" / "model.safetensors").write_bytes(damaged)
        try:
            found = scorer(tmp_path / "copy").score(ROWS).probabilities
        except UsageError as error:
            refused += "\n" not in str(error)
        else:
            refused += bool(np.abs(found - undamaged).max() < 1e-6)  # a bit of the file's remarks
    assert refused == 10


def test_weights_that_a_header_calls_integers_are_refused(model: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    weights = load_file(copied / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].view(torch.int32)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight of" in sentence(copied)
    assert "is stored as I32, not in a floating-point type" in sentence(copied)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (torch.zeros_like, "the head of"),
        (lambda head: head[:1].repeat(3, 1), "is the same for two labels"),
        (lambda head: head[[0, 1, 0]], "is the same for two labels"),
    ],
)
def test_a_head_that_was_never_trained_is_refused(
    model: str, adapter: str, copied: Path, damage: Callable[[torch.Tensor], torch.Tensor], expected: str
) -> None:
    shutil.copytree(model, copied)
    weights = load_file(copied / "model.safetensors")
    weights["score.weight"] = damage(weights["score.weight"])
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert expected in sentence(copied)
    load_classifier(
        ClassifierSettings(kind="llama", model=str(copied), adapter=adapter), Wanted.three_labels()
    )  # which brings another


def test_an_adapter_beside_the_weights_is_refused(model: str, adapter: str, copied: Path) -> None:
    shutil.copytree(model, copied)
    for file in Path(adapter).glob("adapter_*"):
        shutil.copy(file, copied)
    text = sentence(copied)
    assert "holds an adapter (adapter_config.json), which is not applied from there; move it to a directory of" in text
    assert "set adapter to that, and model to its base" in text
    assert sentence(copied, adapter=adapter) == text
    assert "adapter_config.json" in WEIGHT_FILES  # so that one in storage or on the hub is seen too


def test_an_adapter_as_a_model_says_what_to_set(adapter: str, copied: Path) -> None:
    shutil.copytree(adapter, copied)
    content = json.loads((copied / "adapter_config.json").read_text()) | {"base_model_name_or_path": "org/base"}
    (copied / "adapter_config.json").write_text(json.dumps(content))
    assert sentence(copied).endswith(f"set adapter: {copied} and model to its base, org/base")


def test_a_model_that_does_not_fit_in_the_memory_of_a_gpu_names_the_remedies(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", full)
    text = sentence(Path(model))
    assert text.startswith(f"model: {model} does not fit in the memory of the GPU; set quantization to int8 or nf4")
    assert "gpus_per_replica" in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("Using `bitsandbytes` needs it:\n`pip install -U bitsandbytes>=0.46.1`"), "install bitsandbytes"),
        (ModuleNotFoundError("No module named 'tiktoken.load'", name="tiktoken.load"), "install tiktoken"),
        (ImportError("This requires the sentencepiece library but it was not found"), "install sentencepiece"),
    ],
)
def test_a_package_that_is_not_there_is_named(
    model: str, monkeypatch: pytest.MonkeyPatch, error: ImportError, expected: str
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", missing)
    assert sentence(Path(model)).endswith(f"; {expected} and start again")


@pytest.mark.parametrize(
    ("names", "labels", "columns"),
    [
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["tie", "a", "b"], [1, 2, 0]),
        (["erste", "zweite", "keine"], ["a", "b", "tie"], [0, 1, 2]),
        (["erste", "keine", "zweite"], ["a", "tie", "b"], [0, 2, 1]),
        (["model_a", "neither", "model_b"], ["a", "tie", "b"], [0, 2, 1]),
    ],
)
def test_labels_name_columns_that_the_model_does_not(names: list[str], labels: list[str], columns: list[int]) -> None:
    assert checks.class_columns(dict(enumerate(names)), "x", labels) == columns


@pytest.mark.parametrize("names", [["tie", "a", "b"], ["x", "a", "b"], ["a", "b", "b"]])
def test_labels_that_contradict_the_names_are_refused(names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^labels: a, b, tie contradicts the labels of x, "):
        checks.class_columns(dict(enumerate(names)), "x", ["a", "b", "tie"])


def test_labels_order_the_probabilities(model: str, undamaged: np.ndarray) -> None:
    np.testing.assert_allclose(
        scorer(model, labels=["tie", "b", "a"]).score(ROWS).probabilities, undamaged[:, ::-1], atol=1e-6
    )


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "b"], ["a", "b", "c"], "abt"])
def test_labels_are_each_of_the_three_once(labels: object) -> None:
    with pytest.raises(ValueError, match="labels"):
        ClassifierSettings(kind="llama", model="x", labels=labels)
