"""A GPU's forward pass in shapes alone: what it calls exists, fits together, and never waits for the device.

Tensors on the device `meta` have no values, so that whatever would fetch one from a GPU raises.
"""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
)

from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.attention import sdpa as row_attention
from lmsys_ray.engine.attention import transformers_hooks
from lmsys_ray.engine.linear.forms import linear_factory
from lmsys_ray.engine.models.llama import PackedDecoder
from lmsys_ray.engine.models.transformers import TransformersDecoder

META = torch.device("meta")
LENGTHS = [5, 70, 130]
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1000,
}
BACKBONES = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**SIZES)),
    "mistral": lambda: MistralModel(MistralConfig(**SIZES, sliding_window=64)),
    "gemma2": lambda: Gemma2Model(Gemma2Config(**SIZES, sliding_window=64)),
}


@pytest.fixture(params=[True, False], ids=["flash", "t4"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose attention is one call over all rows, and one where each row is a call."""
    monkeypatch.setattr(attention, "has_varlen_kernel", lambda query, value: request.param)
    monkeypatch.setattr(row_attention, "_shares_keys", lambda query: False)


def backbone(name: str, dtype: torch.dtype) -> PreTrainedModel:
    with META:
        made = BACKBONES[name]().eval().to(dtype)
    made.set_attn_implementation(transformers_hooks.PACKED)
    return made


def pooled(decoder: PackedDecoder | TransformersDecoder) -> torch.Tensor:
    on_cpu = attention.layout(LENGTHS, torch.device("cpu"))
    rows = attention.Layout(on_cpu.position_ids.to(META), on_cpu.cumulative.to(META), on_cpu.lengths)
    with torch.inference_mode():
        return decoder(
            torch.zeros(1, sum(LENGTHS), dtype=torch.long, device=META), torch.zeros(3, device=META).long(), rows
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantization", ["none", "int8_dynamic", "fp8"])
@pytest.mark.usefixtures("kernels")
def test_packed_decoder_never_waits_for_a_gpu(quantization: str, dtype: torch.dtype) -> None:
    found = pooled(PackedDecoder(backbone("llama", dtype), linear_factory(quantization)))
    assert (found.shape, found.dtype, found.device) == ((3, 256), dtype, META)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.usefixtures("kernels")
def test_models_of_transformers_never_wait_for_a_gpu(name: str) -> None:
    found = pooled(TransformersDecoder(backbone(name, torch.float16), linear_factory("none")))
    assert (found.shape, found.dtype, found.device) == ((3, 256), torch.float16, META)
