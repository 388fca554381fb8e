"""Linear layers that compute otherwise for a while, so that a model can be compared with another form of itself."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from lmsys_ray.engine.linear.forms import LinearFactory

_INT8_STEPS = 127
"""By how many steps of int8 bitsandbytes divides the largest weight of a row."""


def computing_as(backbone: nn.Module, factory: LinearFactory) -> AbstractContextManager[None]:
    """Lets plain linear layers compute as those of `factory`, made anew at each call so that they take no memory."""
    linears = [module for module in backbone.modules() if type(module) is nn.Linear]
    return _substituted(linears, partial(_through, factory))


def int8_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the layers in which bitsandbytes multiplies int8 weights by inputs that it rounds to int8."""
    bitsandbytes = sys.modules.get("bitsandbytes")  # takes a second to load, and has no layers before that
    if bitsandbytes is None:
        return []
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)]


def unrounded(layers: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Lets the `int8_layers` of a model multiply their rounded weights by inputs as they are.

    Which inputs bitsandbytes rounds depends on the whole micro-batch: a column with an outlier in any row stays as it
    is. Without that, a row's results depend on the row alone.
    """
    return _substituted(layers, _by_unrounded)


@contextmanager
def _substituted(layers: Iterable[nn.Module], forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Lets each of `layers` compute `forward(layer, inputs)`."""
    own = [(layer, layer.__dict__.get("forward")) for layer in layers]
    for layer, _ in own:
        layer.forward = partial(forward, layer)
    try:
        yield
    finally:
        for layer, before in own:
            del layer.forward
            if before is not None:  # accelerate puts its own on some layers of models on several GPUs
                layer.forward = before


def _through(factory: LinearFactory, linear: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    made = factory(linear)
    return nn.functional.linear(inputs, linear.weight, linear.bias) if made is linear else made(inputs)


def _by_unrounded(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Multiplies by what int8 weights and the scales of their rows stand for."""
    held = layer.weight if layer.weight.CB is not None else layer.state  # the first call moves them
    scales = (held.SCB / _INT8_STEPS).to(inputs.dtype)
    bias = None if layer.bias is None else layer.bias.to(inputs.dtype)
    return nn.functional.linear(inputs, held.CB.to(inputs.dtype) * scales[:, None], bias)
