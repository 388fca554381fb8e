"""What only a GPU can tell: `pytest -m gpu` runs these, and the other tests so marked."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, GPT2Config

from lmsys_ray.engine import devices, gpu_memory
from lmsys_ray.engine.attention import flex
from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.attention import sdpa as row_attention
from lmsys_ray.engine.linear import quantized
from lmsys_ray.engine.linear.forms import accepts_sizes, linear_factory
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from tests import tiny_llama
from tests.checkpoints.architectures import VARIANTS, random_model, tiny_config
from tests.members.classifier.test_scorer import LENGTHS, encoded, one_at_a_time

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3-label Llama of sizes that every product on a GPU takes."""
    return tiny_llama.make_model(tmp_path_factory.mktemp("wide"), **SIZES)


@pytest.fixture
def whole_gpu() -> Iterator[None]:
    """Gives a test's share of the GPU back."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def scorer(model: Path, **changes: object) -> ClassifierScorer:
    return ClassifierScorer(
        ClassifierSettings.model_validate({"kind": "llama", "model": str(model), "max_length": 128, **changes})
    )


def no_fp8() -> bool:
    return torch.cuda.get_device_capability() < (8, 9) or devices.fp8_failure() is not None


@pytest.mark.parametrize("padding", ["none", "longest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_probabilities_are_those_of_transformers_one_row_at_a_time(wide: Path, dtype: str, padding: str) -> None:
    if dtype == "bfloat16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no bfloat16")
    table = encoded(LENGTHS)
    exact = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(wide).eval(), table)
    same = AutoModelForSequenceClassification.from_pretrained(wide, dtype=getattr(torch, dtype)).eval().cuda()
    same.score.float()
    with torch.inference_mode():
        rows = [torch.tensor([ids]).cuda() for ids in table["input_ids"].to_pylist()]
        logits = torch.cat([same.score(same.model(ids).last_hidden_state[:, -1].float()) for ids in rows])
    noise = abs(torch.softmax(logits, -1).cpu().numpy() - exact)
    error = abs(scorer(wide, dtype=dtype, padding=padding).score(table).probabilities - exact)
    # As close to float32 on a CPU as transformers is in this type, but for chance.
    assert error.mean() < 2 * noise.mean() + 1e-5
    assert error.max() < 3 * noise.max() + 1e-4


SOFT_CAPPED = ("gemma2", "gemma2 with wide heads")
SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    **{
        name: (name, {})
        for name in ("gemma2", "gemma3_text", "mistral", "qwen3", "gpt2", "gpt_oss", "bloom", "mixtral")
    },
    "gemma2 with wide heads": ("gemma2", {"head_dim": 64, "sliding_window": 32}),
    "heads that no kernel takes": ("llama", {"head_dim": 12}),
    "values of another size": ("deepseek_v3", {"v_head_dim": 12}),
    "longrope": VARIANTS["longrope"],
    "both ways": VARIANTS["bidirectional llama"],
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_other_architectures_are_as_close_as_transformers(tmp_path: Path, shape: str, dtype: str) -> None:
    if dtype == "bfloat16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no bfloat16")
    architecture, changes = SHAPES[shape]
    random_model(tiny_config(architecture, **changes)).save_pretrained(tmp_path)
    tiny_llama.make_tokenizer(tmp_path)
    table = encoded(LENGTHS)
    rows = [torch.tensor([ids]) for ids in table["input_ids"].to_pylist()]
    exact = whole(AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), rows)
    same = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval().cuda()
    noise = abs(whole(same, [row.cuda() for row in rows]) - exact)
    made = scorer(tmp_path, dtype=dtype)
    error = abs(made.score(table).probabilities - exact)
    assert error.mean() < 2 * noise.mean() + 1e-3
    if shape in SOFT_CAPPED:  # FlexAttention, where it compiles, and one row after another elsewhere
        assert made.facts["padding"] == "none"


@torch.inference_mode()
def whole(model: nn.Module, rows: list[torch.Tensor]) -> np.ndarray:
    """Each row alone through transformers' own classifier."""
    logits = torch.cat([model(input_ids=row, use_cache=False).logits.float() for row in rows])
    return torch.softmax(logits, -1).cpu().numpy()


def test_flex_attention_compiles_and_bounds_scores_within_rows() -> None:
    lengths, heads = [1, 40, 7, 300], (8, 4, 4)
    torch.manual_seed(0)
    query, key, value = (torch.randn(sum(lengths), n, 64, device="cuda", dtype=torch.float16) for n in heads)
    if not flex.is_supported(query):
        pytest.skip("no Triton, or a GPU before Ampere")
    for window in (None, 16):
        cumulative = attention.layout(lengths, torch.device("cuda")).cumulative
        mask = flex.within_rows(cumulative, sum(lengths), window)
        found = flex.attend(query, key, value, mask, 0.5, 1.5)
        for rows in zip(*(states.split(lengths) for states in (query, key, value, found)), strict=True):
            q, k, v, row = (states.transpose(0, 1)[None].float() for states in rows)
            expected = row_attention.row_attention(q, k, v, 0.5, window, 1.5)
            assert (row - expected).abs().max() < 5e-3


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 512), (64, 24), (48, 48)])
@pytest.mark.parametrize("quantization", ["int8_dynamic", "fp8"])
@torch.inference_mode()
def test_products_of_8_bits_are_the_cpus(quantization: str, inputs: int, outputs: int, rows: int) -> None:
    if quantization == "fp8" and no_fp8():
        pytest.skip("no fp8 products")
    torch.manual_seed(0)
    linear, given = nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    form = linear_factory(quantization)
    expected = form(linear)(given)
    on_gpu = form(linear.cuda())
    assert isinstance(on_gpu, quantized.Int8Linear | quantized.Fp8Linear) == accepts_sizes(quantization)(
        inputs, outputs
    )
    # A value between two codes may be rounded either way; sums of fp8 products are kept less exactly on some GPUs.
    tolerance = {"int8_dynamic": 2e-3, "fp8": 2e-2}[quantization]
    assert (on_gpu(given.cuda()).cpu() - expected).norm() < tolerance * expected.norm()


def test_fp8_computes_or_is_refused(wide: Path) -> None:
    if no_fp8():
        with pytest.raises(UsageError, match=r"^quantization: .* no fp8 products"):
            scorer(wide, quantization="fp8")
        return
    table = encoded(LENGTHS)
    assert (
        0
        < abs(
            scorer(wide, quantization="fp8").score(table).probabilities - scorer(wide).score(table).probabilities
        ).mean()
        < 0.1
    )


@pytest.mark.parametrize("quantization", ["none", "int8_dynamic"])
def test_the_layers_of_gpt_2_compute(tmp_path: Path, quantization: str) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=400, num_labels=3, pad_token_id=1)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    tiny_llama.make_tokenizer(tmp_path)
    model.model = model.transformer
    table = encoded(LENGTHS)
    found = scorer(tmp_path, quantization=quantization).score(table).probabilities
    assert abs(found - one_at_a_time(model, table)).mean() < 0.03


def test_odd_sizes_compute(tmp_path: Path) -> None:
    odd = {"hidden_size": 60, "intermediate_size": 100, "num_attention_heads": 2, "num_key_value_heads": 1}
    directory = tiny_llama.make_model(tmp_path / "odd", head_dim=30, **odd)
    table = encoded(LENGTHS)
    exact = one_at_a_time(AutoModelForSequenceClassification.from_pretrained(directory).eval(), table)
    assert abs(scorer(directory, dtype="float16").score(table).probabilities - exact).mean() < 0.03
    with pytest.raises(UsageError, match="would reach 0% of its weights"):
        scorer(directory, quantization="int8_dynamic")


@pytest.mark.parametrize(("method", "tolerance"), [("nf4", 0.01), ("int8", 0.05)])
def test_stored_weights_of_bitsandbytes_give_what_transformers_makes_of_them(
    wide: Path, tmp_path: Path, method: str, tolerance: float
) -> None:
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float16}
    config = BitsAndBytesConfig(**(four if method == "nf4" else {"load_in_8bit": True}))
    made = AutoModelForSequenceClassification.from_pretrained(wide, quantization_config=config, dtype=torch.float16)
    made.save_pretrained(tmp_path / method)
    tiny_llama.make_tokenizer(tmp_path / method)
    table, reference = encoded(LENGTHS), made.eval()
    reference.score.float()
    with torch.inference_mode():
        rows = [torch.tensor([ids]).cuda() for ids in table["input_ids"].to_pylist()]
        logits = torch.cat([reference.score(reference.model(ids).last_hidden_state[:, -1].float()) for ids in rows])
    expected = torch.softmax(logits, -1).cpu().numpy()
    found = scorer(tmp_path / method, dtype="float16")
    assert found.batch_tokens == (devices.FIXED_BATCH_TOKENS if method == "int8" else devices.MOST_BATCH_TOKENS)
    assert abs(found.score(table).probabilities - expected).mean() < tolerance


@pytest.mark.usefixtures("whole_gpu")
def test_running_out_of_memory_halves_the_micro_batches(wide: Path) -> None:
    table = encoded([128] * 512)
    expected = scorer(wide, dtype="float16", batch_tokens=1024).score(table).probabilities
    made = scorer(wide, dtype="float16", batch_tokens=1 << 16)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + (128 << 20)
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    found = made.score(table).probabilities
    assert made.batch_tokens < 1 << 16
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.usefixtures("whole_gpu")
def test_a_replica_keeps_to_its_part_of_a_gpu(wide: Path) -> None:
    memory = torch.cuda.get_device_properties(0).total_memory
    made = scorer(wide, gpus_per_replica=0.5)
    assert 512 <= made.batch_tokens <= devices.MOST_BATCH_TOKENS
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(memory // 2, dtype=torch.uint8, device="cuda")
    assert gpu_memory.is_out_of_memory(error.value)


def test_a_model_larger_than_its_gpus_is_refused(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, total = torch.cuda.mem_get_info(0)
    gpu_memory.check_room(0.5 * free, 1, "x")
    with pytest.raises(UsageError, match="the weights of x take"):
        gpu_memory.check_room(total, 1, "x")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (1 << 20, total))
    with pytest.raises(UsageError, match=r"^model: the weights of .* take 0\.0 GiB, and 1 GPUs have room for 0\.0 GiB"):
        scorer(wide)


def test_the_gpus_that_are_there_may_be_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpu_memory.PRETEND_VARIABLE, raising=False)
    gpu_memory.check_reserved(torch.cuda.device_count())
    with pytest.raises(UsageError, match="device: a replica reserved"):
        gpu_memory.check_reserved(torch.cuda.device_count() + 1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_a_model_over_two_gpus_gives_what_it_gives_on_one(wide: Path) -> None:
    table = encoded(LENGTHS)
    made = scorer(wide, gpus_per_replica=2, dtype="float16")
    assert len({parameter.device for parameter in made.classifier.backbone.parameters()}) == 2
    np.testing.assert_allclose(
        made.score(table).probabilities, scorer(wide, dtype="float16").score(table).probabilities, atol=5e-3
    )
