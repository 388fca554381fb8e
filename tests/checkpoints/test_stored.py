"""Checkpoints stored quantized: loaded as transformers loads them, their head plain, or refused by a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, BitsAndBytesConfig, LlamaConfig
from transformers import LlamaForCausalLM as LanguageModel

from lmsys_ray.checkpoints import loading, stored, weight_files
from lmsys_ray.checkpoints.loading import load_classifier
from lmsys_ray.checkpoints.quantization import Choice
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine import devices
from lmsys_ray.engine.models.transformers import TransformersDecoder
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama
from tests.checkpoints.adapter_reference import without_packing
from tests.members.classifier.test_scorer import LENGTHS, encoded, one_at_a_time

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # nf4 packs blocks of 64


def quantized(method: str, skip: list[str] | None) -> BitsAndBytesConfig:
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=skip,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier whose head is plain or quantized, and a language model, each stored in nf4 and int8; an adapter."""
    folder = tmp_path_factory.mktemp("stored")
    plain = tiny_llama.make_model(folder / "plain", **WIDE)
    torch.manual_seed(0)
    language = LanguageModel(LlamaConfig(**{**tiny_llama.SIZES, **WIDE, "num_labels": 2}))
    with torch.no_grad():
        for parameter in (p for p in language.parameters() if p.ndim == 2):
            parameter.normal_(std=0.2)
    language.save_pretrained(folder / "language")
    for method in ("nf4", "int8"):
        for name, base, loader, skip in (
            ("head plain", plain, AutoModelForSequenceClassification, None),
            ("head quantized", plain, AutoModelForSequenceClassification, ["lm_head"]),
            ("language", folder / "language", LanguageModel, ["lm_head"]),
        ):
            model = loader.from_pretrained(base, quantization_config=quantized(method, skip))
            model.save_pretrained(folder / method / name)
            tiny_llama.make_tokenizer(folder / method / name)
    found = {f"{method} {path.name}": path for method in ("nf4", "int8") for path in (folder / method).iterdir()}
    return {**found, "plain": plain, "adapter": tiny_llama.make_adapter(folder / "adapter", **WIDE)}


def scorer(model: Path, adapter: Path | None = None, **changes: object) -> ClassifierScorer:
    values = {"kind": "llama", "model": str(model), "adapter": adapter and str(adapter), "max_length": 128, **changes}
    return ClassifierScorer(ClassifierSettings.model_validate(values))


def loaded_by_transformers(directory: Path, **changes: object) -> Any:
    """The same directory, computing in float32 as a replica on a CPU does."""
    config = AutoConfig.from_pretrained(directory, num_labels=3)
    config.quantization_config |= {"bnb_4bit_compute_dtype": "float32", **changes}
    model = AutoModelForSequenceClassification.from_pretrained(directory, config=config, dtype=torch.float32)
    return without_packing(model.eval())


@pytest.mark.parametrize(("method", "tolerance"), [("nf4", 2e-6), ("int8", 0.05)])
@pytest.mark.parametrize("head", ["head plain", "head quantized"])
def test_a_stored_classifier_gives_what_transformers_makes_of_it(
    models: dict[str, Path], method: str, tolerance: float, head: str
) -> None:
    table, directory = encoded(LENGTHS), models[f"{method} {head}"]
    reference = loaded_by_transformers(directory)
    if head == "head quantized":
        unit = torch.eye(64)
        reference.score = torch.nn.Linear(64, 3, bias=False)
        weight = load_file(models["plain"] / "model.safetensors")["score.weight"]
        layer = loaded_by_transformers(directory).score
        reference.score.weight.data = layer(unit).T.contiguous()
        assert 0 < (reference.score.weight - weight).abs().max() < 0.1  # rounded, the same otherwise
    made = scorer(directory)
    assert type(made.classifier.head) is torch.nn.Linear
    assert made.classifier.head.weight.dtype == torch.float32
    # int8 takes outliers out of a whole micro-batch, and rows one at a time are other micro-batches.
    np.testing.assert_allclose(made.score(table).probabilities, one_at_a_time(reference, table), atol=tolerance)


@pytest.mark.parametrize(("method", "tolerance"), [("nf4", 2e-6), ("int8", 0.05)])
def test_an_adapter_on_a_stored_language_model_gives_what_peft_gives(
    models: dict[str, Path], method: str, tolerance: float
) -> None:
    directory, adapter, table = models[f"{method} language"], models["adapter"], encoded(LENGTHS)
    assert any(".quant_state." in key or key.endswith(".SCB") for key in load_file(directory / "model.safetensors"))
    base = loaded_by_transformers(directory, llm_int8_skip_modules=["lm_head", "score"])
    reference = peft.PeftModel.from_pretrained(base, str(adapter)).eval().base_model.model
    made = scorer(directory, adapter)
    found = made.score(table).probabilities
    np.testing.assert_allclose(found, one_at_a_time(reference, table), atol=tolerance)
    assert np.ptp(found, axis=0).min() > 0.05
    assert made.classifier.depends_on_batch == (method == "int8")


def test_a_stored_language_model_brings_no_head(models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"^model: .* has no head \(score\.weight\)"):
        scorer(models["nf4 language"])


def test_the_blocks_behind_are_left_out_of_a_stored_model(models: dict[str, Path]) -> None:
    assert len(scorer(models["nf4 head plain"], layers=1).classifier.backbone.backbone.layers) == 1


@pytest.mark.parametrize(
    ("method", "asked", "taken"),
    [("nf4", "nf4", True), ("int8", "int8", True), ("nf4", "int8", False), ("int8", "none", False)],
)
def test_what_is_stored_may_be_named(models: dict[str, Path], method: str, asked: str, taken: bool) -> None:
    if taken:
        assert scorer(models[f"{method} head plain"], quantization=asked).classifier.depends_on_batch == (
            method == "int8"
        )
        return
    with pytest.raises(UsageError, match="is stored quantized already; set quantization to auto"):
        scorer(models[f"{method} head plain"], quantization=asked)


def test_micro_batches_of_stored_int8_are_fixed(models: dict[str, Path]) -> None:
    directory = models["int8 head plain"]
    assert scorer(directory).batch_tokens == devices.FIXED_BATCH_TOKENS
    with pytest.raises(UsageError, match="batch_tokens: 256 with quantization auto"):
        scorer(directory, batch_tokens=256)
    assert scorer(directory, batch_tokens=256, quantization="int8").batch_tokens == 256
    assert scorer(models["nf4 head plain"], batch_tokens=256).batch_tokens == 256


def in_blocks(weight: torch.Tensor, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns e4m3 codes of a weight and a scale for each block of `size` rows and columns, as DeepSeek stores them."""
    rows, columns = -(-weight.shape[0] // size), -(-weight.shape[1] // size)
    codes, scales = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
    for i in range(rows):
        for j in range(columns):
            place = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
            scales[i, j] = weight[place].abs().max() / 448
            codes[place] = (weight[place] / scales[i, j]).to(codes.dtype)
    return codes, scales


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp8")
def test_fp8_in_blocks_is_unpacked_on_a_cpu_and_said(models: dict[str, Path], tmp_path: Path) -> None:
    directory, table = tmp_path / "fp8", encoded(LENGTHS)
    shutil.copytree(models["plain"], directory)
    weights, restored = load_file(directory / "model.safetensors"), {}
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        codes, scales = in_blocks(weights[name])
        restored[name] = (
            codes.float()
            * scales.repeat_interleave(128, 0)[: len(codes)].repeat_interleave(128, 1)[:, : codes.shape[1]]
        )
        weights |= {name: codes, f"{name}_scale_inv": scales}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    described = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    with_quantization(directory, described)
    reference = AutoModelForSequenceClassification.from_pretrained(models["plain"]).eval()
    reference.load_state_dict(restored, strict=False)
    made = scorer(directory)
    assert made.notes == [f"{directory} is stored quantized, and loaded as float32 on this device"]
    np.testing.assert_allclose(made.score(table).probabilities, one_at_a_time(reference, table), atol=1e-5)


def with_quantization(directory: Path, described: dict[str, object]) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": described}))


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ({"quant_method": "gptq", "bits": 4}, "by gptq, which needs .* run pip install optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "by awq, which needs .* run pip install gptqmodel"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "by torchao, .* run pip install torchao"),
        ({"quant_method": "compressed-tensors", "format": "dense"}, ".* run pip install compressed-tensors"),
        ({"quant_method": "quanto", "weights": "int8"}, "by quanto, .* run pip install optimum-quanto"),
        ({"quant_method": "hqq", "quant_config": {}}, "by hqq, .* run pip install hqq"),
        ({"quant_method": "aqlm"}, "by aqlm, .* run pip install aqlm"),
        ({"quant_method": "eetq"}, "by eetq, .* run pip install kernels"),
        ({"quant_method": "vptq"}, "by vptq, .* run pip install vptq"),
        ({"quant_method": "fbgemm_fp8"}, "by fbgemm_fp8, which cannot run here .*requires a GPU"),
        ({"quant_method": "higgs"}, "by higgs, which cannot run here .*only supported on GPU"),
        ({"quant_method": "spqr", "shapes": {"a": 1}}, "by spqr, which cannot run here .*GPU is required"),
        ({"quant_method": "modelopt"}, "by modelopt, which transformers does not know; name a checkpoint"),
        ({"bits": 4}, "by None, which transformers does not know"),
    ],
    ids=lambda value: str(value.get("quant_method")) if isinstance(value, dict) else "",
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="sentences of a machine without a GPU")
def test_what_cannot_run_here_is_refused(
    model: str, copied: Path, monkeypatch: pytest.MonkeyPatch, described: dict[str, object], sentence: str
) -> None:
    monkeypatch.setattr(stored, "_installed", lambda package: False)
    shutil.copytree(model, copied)
    with_quantization(copied, described)
    with pytest.raises(UsageError, match=f"^model: .* is stored quantized {sentence}"):
        load_classifier(ClassifierSettings(kind="llama", model=str(copied)), Wanted.three_labels())


def test_a_library_that_fails_at_the_first_token_is_a_sentence(model: str) -> None:
    made = AutoModelForSequenceClassification.from_pretrained(model)
    made.quantization_method = "fp8"

    def fail(*inputs: object, **keywords: object) -> None:
        raise ImportError("finegrained-fp8 needs `kernels`.\nInstall it.")

    made.model.forward = fail
    with pytest.raises(UsageError, match=r"by fp8, which does not compute here \(finegrained-fp8 needs `kernels`\); "):
        stored.try_once(made, "some/model")


def test_activations_scaled_by_the_whole_micro_batch_are_known() -> None:
    def described(**activations: object) -> dict[str, Any]:
        return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"input_activations": activations}}}

    assert stored.depends_on_batch(described(dynamic=True, strategy="tensor"))
    assert not stored.depends_on_batch(described(dynamic=True, strategy="token"))
    assert not stored.depends_on_batch(described(dynamic=False, strategy="tensor"))
    assert not stored.depends_on_batch({"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}})


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}", b"\xff" * 20])
def test_a_damaged_file_of_weights_is_refused(models: dict[str, Path], copied: Path, content: bytes) -> None:
    shutil.copytree(models["nf4 head plain"], copied)
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match=r"^model: the weights of .* cannot be read"):
        scorer(copied)


def test_bytes_are_those_of_what_a_classifier_loads(models: dict[str, Path]) -> None:
    directory = models["nf4 language"]
    found = weight_files.tensors(directory, "x")
    weights = load_file(directory / "model.safetensors")
    needed = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    assert stored.needed_bytes(found, None) == sum(weight.nbytes for weight in needed.values())
    first = {name: weight for name, weight in needed.items() if ".layers.1." not in name}
    assert stored.needed_bytes(found, 1) == sum(weight.nbytes for weight in first.values())


def test_layers_of_a_library_are_left_to_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """compressed-tensors keeps the class `nn.Linear` and changes what a layer does with its weights."""
    monkeypatch.setattr(loading.quantizing, "as_loaded", lambda *given: Choice("stored"))
    made = load_classifier(ClassifierSettings(kind="llama", model=model), Wanted.three_labels())
    assert isinstance(made.backbone, TransformersDecoder)
