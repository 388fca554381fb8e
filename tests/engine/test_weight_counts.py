"""Which weights a quantization reaches, and what is said or refused where it reaches few."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, GPT2Config, LlamaConfig, MixtralConfig, PreTrainedConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.pytorch_utils import Conv1D

from lmsys_ray.checkpoints import quantization
from lmsys_ray.checkpoints.base_model import Checkpoint
from lmsys_ray.checkpoints.heads import LINEAR
from lmsys_ray.engine import gpu_memory
from lmsys_ray.engine import weight_counts as weights
from lmsys_ray.engine.linear.forms import accepts_sizes
from lmsys_ray.engine.linear.quantized import Fp8Linear, Int8Linear
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama
from tests.members.classifier.test_scorer import LENGTHS, encoded, one_at_a_time

MIXTRAL = MixtralConfig(num_labels=3)  # 8x7B
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 400, "num_labels": 3, "pad_token_id": 1}
CONFIGS = {
    "llama": LlamaConfig(**tiny_llama.SIZES),
    "gpt2": GPT2Config(**GPT2),
    "mixtral": MixtralConfig(**{**tiny_llama.SIZES, "num_local_experts": 4}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_that_are_counted_are_those_that_bitsandbytes_replaces(name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(CONFIGS[name])
    before = {key: parameter.numel() for key, parameter in model.named_parameters()}
    config = quantization.loading_arguments("int8", settings("x"))["quantization_config"]
    replace_with_bnb_linear(model, modules_to_not_convert=["score"], quantization_config=config, pre_quantized=True)
    replaced = [f"{key}.weight" for key, module in model.named_modules() if type(module).__name__ == "Linear8bitLt"]
    counted = weights.count(CONFIGS[name])
    assert counted.quantized == sum(before[key] for key in replaced) > 0
    assert counted.quantized + counted.plain + counted.embeddings == sum(before.values())


def settings(model: str, **changes: object) -> ClassifierSettings:
    return ClassifierSettings.model_validate({"kind": "llama", "model": model, "max_length": 128, **changes})


def with_gpus(monkeypatch: pytest.MonkeyPatch, gib: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gpu_memory, "total", lambda gpus: int(gpus * gib) << 30)
    monkeypatch.setattr(gpu_memory, "_free", lambda gpus: [gib << 30] * int(gpus))


@pytest.fixture
def no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models named here have no files, and so no note of the type that they were trained in."""
    monkeypatch.setattr(quantization, "trained_dtype", lambda settings: None)


@pytest.mark.usefixtures("no_note")
def test_a_model_of_experts_that_no_quantization_shrinks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mixtral-8x7B on one GPU of 80 GiB: its experts are tensors of three dimensions, which bitsandbytes leaves."""
    with_gpus(monkeypatch, gib=80)
    with pytest.raises(UsageError, match=r"^model: the weights of mixtral take 84\.9 GiB, and 1 GPUs have room for 76"):
        quantization.choose(Checkpoint(tmp_path, MIXTRAL, LINEAR, False), settings("mixtral"))
    two = settings("mixtral", gpus_per_replica=2)
    assert quantization.choose(Checkpoint(tmp_path, MIXTRAL, LINEAR, False), two) == quantization.Choice("none")


@pytest.mark.usefixtures("no_note")
@pytest.mark.parametrize("asked", ["int8", "nf4", "int8_dynamic", "fp8"])
def test_a_quantization_that_reaches_next_to_nothing_is_refused(asked: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^quantization: {asked} would reach 3% of its weights .* of mixtral; "):
        quantization.choose(Checkpoint(tmp_path, MIXTRAL, LINEAR, False), settings("mixtral", quantization=asked))


@pytest.mark.usefixtures("no_note")
def test_what_a_quantization_leaves_is_said(tmp_path: Path) -> None:
    mixed = MixtralConfig(**{**tiny_llama.SIZES, "num_local_experts": 2})
    note = quantization.choose(Checkpoint(tmp_path, mixed, LINEAR, False), settings("x", quantization="nf4")).note
    assert note == "quantization nf4 reaches 25% of its weights beside the embeddings, others stay plain"
    assert (
        quantization.choose(
            Checkpoint(tmp_path, CONFIGS["llama"], LINEAR, False), settings("x", quantization="nf4")
        ).note
        is None
    )


@pytest.mark.usefixtures("no_note")
@pytest.mark.parametrize(
    ("dtype", "gib", "expected"),
    [
        ("float32", 30, "int8"),
        ("bfloat16", 30, "none"),
        ("float32", 60, "none"),
        ("auto", 12, "int8"),
        ("auto", 7, "nf4"),
    ],
)
def test_plain_weights_take_what_their_type_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str, gib: int, expected: str
) -> None:
    llama = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8}
    with_gpus(monkeypatch, gib)
    chosen = quantization.choose(
        Checkpoint(tmp_path, LlamaConfig(**llama, num_labels=3), LINEAR, False), settings("x", dtype=dtype)
    )
    assert chosen.quantization == expected


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(GPT2Config(**GPT2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)  # biases too
    model.save_pretrained(directory)
    tiny_llama.make_tokenizer(directory)
    return directory


@pytest.mark.parametrize(("asked", "form", "tolerance"), [("int8_dynamic", Int8Linear, 0.03), ("fp8", Fp8Linear, 0.1)])
def test_the_layers_of_gpt_2_are_quantized(gpt2: Path, asked: str, form: type, tolerance: float) -> None:
    made = ClassifierScorer(settings(str(gpt2), quantization=asked))
    kinds = [type(module) for module in made.classifier.backbone.modules()]
    assert kinds.count(form) == 8
    assert Conv1D not in kinds
    table = encoded(LENGTHS)
    plain = AutoModelForSequenceClassification.from_pretrained(gpt2).eval()
    plain.model = plain.transformer
    expected = one_at_a_time(plain, table)
    np.testing.assert_allclose(ClassifierScorer(settings(str(gpt2))).score(table).probabilities, expected, atol=1e-5)
    assert 0 < abs(made.score(table).probabilities - expected).mean() < tolerance


@pytest.mark.parametrize(("asked", "outputs", "reached"), [("int8_dynamic", 24, True), ("int8_dynamic", 20, False)])
def test_layers_of_sizes_that_gpus_do_not_multiply_stay_plain(asked: str, outputs: int, reached: bool) -> None:
    assert accepts_sizes(asked)(64, outputs) == accepts_sizes(asked)(outputs, 64) == reached
    assert not accepts_sizes("fp8")(64, outputs)
    assert accepts_sizes("fp8")(64, 48)


def test_a_model_of_odd_sizes_is_refused_in_8_bits_and_scores_without(tmp_path: Path) -> None:
    odd = {"hidden_size": 60, "intermediate_size": 100, "num_attention_heads": 2, "num_key_value_heads": 1}
    directory = str(tiny_llama.make_model(tmp_path / "odd", head_dim=30, **odd))
    with pytest.raises(UsageError, match="quantization: fp8 would reach 0% of its weights"):
        ClassifierScorer(settings(directory, quantization="fp8"))
    assert ClassifierScorer(settings(directory)).score(encoded([5, 9])).probabilities.shape == (2, 3)


def test_a_config_of_any_kind_counts_all_its_weights() -> None:
    config: PreTrainedConfig = CONFIGS["gpt2"]
    everything = weights.count(config)
    nothing = weights.count(config, lambda inputs, outputs: False)
    assert (nothing.quantized, nothing.share) == (0, 0)
    assert nothing.bytes(1, 2) == 2 * (everything.quantized + everything.plain + everything.embeddings)
    assert everything.bytes(1, 2) == nothing.bytes(1, 2) - everything.quantized
