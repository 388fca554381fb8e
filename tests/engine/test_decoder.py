"""The fused decoder: what transformers computes at the last token of each row, and nothing of other rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForSequenceClassification, MistralConfig, PreTrainedModel

from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.linear.forms import fused, linear_factory
from lmsys_ray.engine.models.llama import PackedDecoder, fits
from lmsys_ray.engine.models.transformers import TransformersDecoder
from tests import tiny_llama
from tests.engine.random_rows import random_rows

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=5)
ROUNDING = {"atol": 1e-5, "rtol": 1e-5}
"""Of hidden states of some units: in 3,000 random cases either side was up to 6e-6 from what float64 gives."""


pytestmark = pytest.mark.usefixtures("one_thread")


def mistral(**changes: object) -> PreTrainedModel:
    config = MistralConfig(**{**tiny_llama.SIZES, "head_dim": 8, "sliding_window": None, **changes})
    return AutoModelForSequenceClassification.from_config(config).eval()


def backbone(name: str) -> PreTrainedModel:
    return mistral().model if name == "mistral" else tiny_llama.make_classifier(name).model


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral"])
def pair(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PackedDecoder]:
    """The same weights as transformers runs them and fused."""
    assert fits(backbone(request.param))
    torch.manual_seed(1)
    plain = backbone(request.param)
    torch.manual_seed(1)
    return plain, PackedDecoder(backbone(request.param), linear_factory("none"))


@torch.inference_mode()
def pooled(decoder: PackedDecoder | TransformersDecoder, rows: list[torch.Tensor]) -> torch.Tensor:
    lengths = [len(row) for row in rows]
    last = torch.tensor(lengths).cumsum(0) - 1
    return decoder(torch.cat(rows)[None], last, attention.layout(lengths, CPU))


@settings(max_examples=25)
@given(LENGTHS, st.data())
def test_rows_that_begin_as_the_one_before_need_only_the_rest(
    pair: tuple[PreTrainedModel, PackedDecoder], lengths: list[int], data: st.DataObject
) -> None:
    plain, packed = pair
    rows, shared = random_rows(lengths), [0]
    for place in range(1, len(rows)):
        shared.append(data.draw(st.integers(0, min(len(rows[place]) - 1, len(rows[place - 1])))))
        rows[place][: shared[-1]] = rows[place - 1][: shared[-1]]
    own = [row[common:] for row, common in zip(rows, shared, strict=True)]
    laid_out = attention.layout([len(row) for row in own], CPU, shared)
    with torch.inference_mode():
        alone = torch.stack([plain(row[None], use_cache=False).last_hidden_state[0, -1] for row in rows])
        found = packed(torch.cat(own)[None], laid_out.cumulative[1:] - 1, laid_out)
    torch.testing.assert_close(found, alone, **ROUNDING)


@settings(max_examples=25)
@given(LENGTHS)
def test_the_last_tokens_are_those_of_each_row_alone(
    pair: tuple[PreTrainedModel, PackedDecoder], lengths: list[int]
) -> None:
    plain, packed = pair
    rows = random_rows(lengths)
    with torch.inference_mode():
        alone = torch.stack([plain(row[None], use_cache=False).last_hidden_state[0, -1] for row in rows])
    torch.testing.assert_close(pooled(packed, rows), alone, **ROUNDING)
    assert alone.std() > 0.1


@settings(max_examples=25)
@given(LENGTHS, st.data())
def test_changing_one_row_changes_no_other(
    pair: tuple[PreTrainedModel, PackedDecoder], lengths: list[int], data: st.DataObject
) -> None:
    rows = random_rows(lengths)
    changed = data.draw(st.integers(0, len(rows) - 1))
    before = pooled(pair[1], rows)
    rows[changed] = (rows[changed] + 1) % 400
    difference = (pooled(pair[1], rows) - before).abs().amax(dim=1)
    for i, moved in enumerate(difference):
        assert moved > 1e-3 if i == changed else moved < 1e-6


def test_long_rows_take_the_same_values() -> None:
    torch.manual_seed(0)
    plain = tiny_llama.make_classifier(max_position_embeddings=2048).model
    packed = PackedDecoder(tiny_llama.make_classifier(max_position_embeddings=2048).model, linear_factory("none"))
    rows = random_rows([700, 3, 333])
    with torch.inference_mode():
        alone = torch.stack([plain(row[None], use_cache=False).last_hidden_state[0, -1] for row in rows])
    assert (pooled(packed, rows) - alone).abs().max() < 1e-4


def test_other_layers_than_those_it_knows_are_left_to_transformers() -> None:
    assert not fits(mistral(sliding_window=6).model)
    assert not fits(tiny_llama.make_classifier(hidden_act="gelu").model)
    replaced = tiny_llama.make_classifier().model
    replaced.layers[1].mlp.up_proj = nn.Sequential(replaced.layers[1].mlp.up_proj)  # as an adapter does
    assert not fits(replaced)


@pytest.mark.parametrize(("kind", "expected"), [("linear", True), ("dynamic", False)])
def test_angles_that_follow_the_longest_row_are_left_to_transformers(kind: str, expected: bool) -> None:
    angles = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0}
    assert fits(mistral(rope_parameters=angles).model) == expected


def test_the_backbone_gives_its_weights_away() -> None:
    taken = tiny_llama.make_classifier().model
    layers = len(taken.layers)
    assert len(PackedDecoder(taken, linear_factory("none")).layers) == layers
    assert len(taken.layers) == 0


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, False)])
def test_layers_side_by_side_give_their_outputs_end_to_end(biases: tuple[bool, bool]) -> None:
    linears = [nn.Linear(6, outputs, bias=bias) for outputs, bias in zip((4, 3), biases, strict=True)]
    inputs = torch.randn(5, 6)
    expected = torch.cat([linear(inputs) for linear in linears], dim=-1)
    torch.testing.assert_close(fused(linears)(inputs), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("quantization", ["none", "int8_dynamic", "fp8"])
def test_a_gpu_computes_what_the_cpu_does(quantization: str) -> None:
    if quantization == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 products")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    rows = random_rows([5, 40, 1, 300])
    expected = pooled(PackedDecoder(tiny_llama.make_classifier(**sizes).model, linear_factory("none")), rows)
    model = tiny_llama.make_classifier(**sizes).model.to("cuda", torch.bfloat16)
    decoder = PackedDecoder(model, linear_factory(quantization))
    lengths = [len(row) for row in rows]
    last = torch.tensor(lengths).cumsum(0) - 1
    with torch.inference_mode():
        layout = attention.layout(lengths, torch.device("cuda"))
        found = decoder(torch.cat(rows)[None].cuda(), last.cuda(), layout).float().cpu()
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()
