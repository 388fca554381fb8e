"""Packed rows: each is computed as if it were alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForSequenceClassification, Gemma2Config, MistralConfig, PreTrainedModel

from lmsys_ray.engine import cpu
from lmsys_ray.engine.attention import cpu_blocked, flex, transformers_hooks
from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.attention import sdpa as row_attention
from tests import tiny_llama
from tests.engine.random_rows import random_rows

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=5)


pytestmark = pytest.mark.usefixtures("one_thread")


def classifier(name: str) -> PreTrainedModel:
    """Tiny models with what sets architectures apart: grouped queries, biases, sliding windows, bounded scores."""
    sizes = {**tiny_llama.SIZES, "head_dim": 8}
    if name in tiny_llama.ARCHITECTURES:
        return tiny_llama.make_classifier(name)
    configs = {
        "mistral": MistralConfig(**sizes, sliding_window=6),
        "gemma2": Gemma2Config(**sizes, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=8),
    }
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(configs[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    return model


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral", "gemma2"])
def backbones(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The same weights with transformers' own attention and with packed rows."""
    plain, packed = classifier(request.param).model, classifier(request.param).model
    packed.set_attn_implementation(transformers_hooks.PACKED)
    return plain, packed


@torch.inference_mode()
def run_packed(backbone: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    layout = attention.layout([len(row) for row in rows], CPU)
    return backbone(torch.cat(rows)[None], use_cache=False, **layout.keywords()).last_hidden_state[0]


@settings(max_examples=25)
@given(LENGTHS)
def test_packed_rows_equal_one_row_at_a_time(
    backbones: tuple[PreTrainedModel, PreTrainedModel], lengths: list[int]
) -> None:
    plain, packed = backbones
    rows = random_rows(lengths)
    with torch.inference_mode():
        alone = torch.cat([plain(row[None], use_cache=False).last_hidden_state[0] for row in rows])
    assert (run_packed(packed, rows) - alone).abs().max() < 1e-5


@settings(max_examples=25)
@given(LENGTHS)
def test_padded_rows_equal_one_row_at_a_time(
    backbones: tuple[PreTrainedModel, PreTrainedModel], lengths: list[int]
) -> None:
    plain, padded = backbones
    rows = random_rows(lengths)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    padded.set_attn_implementation(transformers_hooks.PADDED)
    try:
        with torch.inference_mode():
            found = padded(ids, use_cache=False).last_hidden_state
            for row, states in zip(rows, found, strict=True):
                expected = plain(row[None], use_cache=False).last_hidden_state[0]
                assert (states[: len(row)] - expected).abs().max() < 1e-5
    finally:
        padded.set_attn_implementation(transformers_hooks.PACKED)


@pytest.mark.parametrize("window", [None, 5])
def test_repeated_keys_are_attended_to_as_shared_ones(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 12, 16) for heads in (6, 2, 2))
    shared = row_attention.row_attention(query, key, value, 0.3, window, None)
    monkeypatch.setattr(row_attention, "_shares_keys", lambda query: False)
    torch.testing.assert_close(row_attention.row_attention(query, key, value, 0.3, window, None), shared)


@pytest.mark.parametrize(
    ("capability", "dtype", "packed", "chosen", "expected"),
    [
        ((7, 5), torch.float16, False, "sdpa", transformers_hooks.PADDED),
        ((7, 5), torch.float16, False, "eager", "eager"),
        ((7, 5), torch.float16, True, "sdpa", transformers_hooks.PACKED),
        ((9, 0), torch.bfloat16, False, "sdpa", "sdpa"),
        ((9, 0), torch.float32, False, "sdpa", transformers_hooks.PADDED),
    ],
)
def test_padded_rows_keep_to_torch_where_it_is_fast(
    capability: tuple[int, int],
    dtype: torch.dtype,
    packed: bool,
    chosen: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert transformers_hooks.implementation(packed, chosen, torch.device("cuda"), dtype) == expected
    assert transformers_hooks.implementation(False, chosen, CPU, dtype) == chosen


@settings(max_examples=25)
@given(LENGTHS, st.data())
def test_changing_one_row_changes_no_other(
    backbones: tuple[PreTrainedModel, PreTrainedModel], lengths: list[int], data: st.DataObject
) -> None:
    _, packed = backbones
    rows = random_rows(lengths)
    changed = data.draw(st.integers(0, len(rows) - 1))
    before = run_packed(packed, rows).split(lengths)
    rows[changed] = (rows[changed] + 1) % 400
    after = run_packed(packed, rows).split(lengths)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        difference = (old - new).abs().max()
        assert difference > 1e-3 if i == changed else difference < 1e-6


@given(LENGTHS)
def test_layout_restarts_positions_and_accumulates_lengths(lengths: list[int]) -> None:
    made = attention.layout(lengths, CPU)
    assert made.position_ids[0].tolist() == [position for length in lengths for position in range(length)]
    assert made.cumulative.tolist() == [0, *np.cumsum(lengths)]
    assert made.cumulative.dtype == torch.int32
    assert made.lengths == tuple(lengths)


@pytest.fixture(params=["MKL", "oneDNN"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to multiply, whatever the processor of this machine."""
    monkeypatch.setattr(cpu, "mkl_is_fast", lambda: request.param == "MKL")
    return str(request.param)


@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (4, 4), (6, 1)])
@pytest.mark.parametrize("tokens", [120, 127, 128, 129, 256, 257, 703, 2048])
@pytest.mark.usefixtures("products")
def test_blocks_of_queries_see_what_each_query_sees(heads: int, kv_heads: int, tokens: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(tokens, count, 32) for count in (heads, kv_heads, kv_heads))
    rows = attention.layout([tokens], query.device)
    found = attention.within_rows(query, key, value, rows, 0.2)
    q, k, v = (tensor.double().transpose(0, 1)[None] for tensor in (query, key, value))
    expected = scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.2, enable_gqa=True)[0].transpose(0, 1)
    assert cpu_blocked.is_faster(query, key)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [40, 150, 300, 1200])
@pytest.mark.usefixtures("products")
def test_a_row_sees_what_it_shares_with_the_rows_before_it(tokens: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(tokens, count, 32) for count in (6, 2, 2))
    lengths, shared = [tokens - 25, 5, 20], [0, 10, 12]
    found = attention.within_rows(query, key, value, attention.layout(lengths, CPU, shared), 0.2)
    last = torch.tensor(lengths).cumsum(0) - 1
    found_last = attention.of_last_tokens(query[last], key, value, attention.layout(lengths, CPU, shared), 0.2)
    torch.testing.assert_close(found[last], found_last, atol=1e-5, rtol=1e-5)
    second = [*range(10), *range(tokens - 25, tokens - 20)]
    third = [*second[:12], *range(tokens - 20, tokens)]
    for places, own in ((list(range(tokens - 25)), tokens - 25), (second, 5), (third, 20)):
        q, k, v = (tensor[places].transpose(0, 1)[None] for tensor in (query, key, value))
        expected = scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.2, enable_gqa=True)[0, :, -own:]
        torch.testing.assert_close(found[places[-own:]], expected.transpose(0, 1), atol=1e-5, rtol=1e-5)


def test_positions_go_on_behind_what_is_shared() -> None:
    made = attention.layout([4, 2, 3], CPU, [0, 3, 1])
    assert made.position_ids[0].tolist() == [0, 1, 2, 3, 3, 4, 1, 2, 3]
    assert made.cumulative.tolist() == [0, 4, 6, 9]


def test_attention_that_cannot_be_packed_is_refused() -> None:
    states = torch.zeros(1, 2, 3, 4)
    layout = attention.layout([3], CPU).keywords()
    with pytest.raises(NotImplementedError, match="Linear attends with s_aux"):
        transformers_hooks.packed_attention(
            torch.nn.Linear(1, 1), states, states, states, None, s_aux=torch.zeros(2), **layout
        )


def test_padded_attention_that_is_not_computed_is_refused() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(NotImplementedError, match="Linear attends with position_bias"):
        transformers_hooks.padded_attention(
            torch.nn.Linear(1, 1), states, states, states, None, position_bias=torch.zeros(2)
        )


def test_masks_and_looking_ahead_are_no_attention_of_packed_rows() -> None:
    states, layout = torch.zeros(1, 2, 3, 4), attention.layout([3], CPU).keywords()
    with pytest.raises(NotImplementedError, match="Linear attends with attention_mask"):
        transformers_hooks.packed_attention(torch.nn.Linear(1, 1), states, states, states, torch.zeros(3, 3), **layout)
    both_ways = torch.nn.Linear(1, 1)
    both_ways.is_causal = False  # type: ignore[assignment]
    with pytest.raises(NotImplementedError, match="Linear attends with tokens that see what follows them"):
        transformers_hooks.packed_attention(both_ways, states, states, states, None, **layout)


@settings(max_examples=10)
@given(LENGTHS, st.sampled_from([None, 1, 6]))
def test_flex_attention_bounds_scores_within_rows(lengths: list[int], window: int | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(sum(lengths), heads, 16) for heads in (4, 2, 2))
    mask = flex.within_rows(attention.layout(lengths, CPU).cumulative, sum(lengths), window)
    found = flex.attend(query, key, value, mask, 0.5, 1.5)
    for rows in zip(*(states.split(lengths) for states in (query, key, value, found)), strict=True):
        q, k, v, row = (states.transpose(0, 1)[None].double() for states in rows)
        expected = row_attention.row_attention(q, k, v, 0.5, window, 1.5)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


def test_values_may_have_another_size_than_queries() -> None:
    torch.manual_seed(0)
    lengths = [3, 150]
    query, key, value = torch.randn(153, 6, 16), torch.randn(153, 2, 16), torch.randn(153, 2, 24)
    found = attention.within_rows(query, key, value, attention.layout(lengths, CPU), 0.3)
    for q, k, v, row in zip(*(states.split(lengths) for states in (query, key, value, found)), strict=True):
        q, k, v = (states.double().transpose(0, 1)[None] for states in (q, k, v))
        expected = scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)[0].transpose(0, 1)
        torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("window", [None, 16])
def test_the_cuda_kernel_equals_one_row_at_a_time(window: int | None) -> None:
    lengths = [1, 40, 7, 129]
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, sum(lengths), 64, device="cuda", dtype=torch.float16) for heads in (6, 2, 2)
    )
    layout = attention.layout(lengths, torch.device("cuda")).keywords()
    module = torch.nn.Identity()
    found, _ = transformers_hooks.packed_attention(module, query, key, value, None, sliding_window=window, **layout)
    expected, _ = transformers_hooks.packed_attention(
        module, query.float(), key.float(), value.float(), None, sliding_window=window, **layout
    )
    assert (found.float() - expected).abs().max() < 5e-3
