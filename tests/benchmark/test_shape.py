"""The operations that a share of the peak is counted in."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lmsys_ray.benchmark.shape import RANDOM, Shape
from tests import tiny_llama


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4, "intermediate_size": 40, "num_hidden_layers": 3}])
def test_one_token_costs_what_pytorch_counts(changes: dict[str, int]) -> None:
    model = tiny_llama.make_classifier(attn_implementation="eager", **changes).model
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.tensor([[5]]), use_cache=False)
    assert Shape.of(model.config.to_dict()).operations(np.array([1])) == counter.get_total_flops()


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_rows_cost_the_same_together_and_alone(lengths: list[int]) -> None:
    shape = Shape.of(RANDOM["smollm2-135m"])
    alone = sum(shape.operations(np.array([length])) for length in lengths)
    assert shape.operations(np.array(lengths)) == pytest.approx(alone)


def test_an_eight_billion_llama_costs_what_is_known() -> None:
    """Two operations for each of its 6.98 billion weights in layers, and 2 % for attention at 1,000 tokens."""
    shape = Shape.of(RANDOM["llama-3-8b"])
    assert shape.operations(np.array([1024])) / 1024 == pytest.approx(14.2e9, rel=0.01)
