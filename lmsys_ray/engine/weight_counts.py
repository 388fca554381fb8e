"""How many weights a model has and how many of them a quantization would change, counted without loading any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from lmsys_ray.engine.models.classes import without_weights
from lmsys_ray.errors import UsageError

HEAD = "score"
"""The module that is never quantized."""

_LEAST_SHARE = 0.1
_WHOLE_SHARE = 0.9


@dataclass(frozen=True)
class Weights:
    """The weights of a classifier, by whether they are quantized."""

    quantized: int
    """Of the linear layers that are quantized."""
    plain: int
    """Those that keep their type: norms, the head, experts in three dimensions, layers whose sizes do not fit."""
    embeddings: int = 0
    """Those of the embeddings, which keep their type too and cost no time."""

    @property
    def share(self) -> float:
        """The part of the weights, embeddings aside, that is quantized, 0 to 1."""
        return self.quantized / max(1, self.quantized + self.plain)

    def bytes(self, quantized: float, plain: float) -> float:
        """Returns the bytes that they take where a quantized weight takes `quantized` bytes, and another `plain`."""
        return self.quantized * quantized + (self.plain + self.embeddings) * plain


def count(config: PreTrainedConfig, accepts: Callable[[int, int], bool] = lambda inputs, outputs: True) -> Weights:
    """Returns the weights of the classifier that a config describes.

    A linear layer counts as quantized if `accepts(inputs, outputs)`. Experts whose weights are one tensor of three
    dimensions are not linear layers; bitsandbytes leaves them alone too.
    """
    model = without_weights(config)
    embedding = model.get_input_embeddings()
    kept = [HEAD, *(model._keep_in_fp32_modules or [])]
    quantized = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if is_linear(module) and should_convert_module(name, kept) and accepts(*sizes(module))
    )
    embeddings = sum(parameter.numel() for parameter in embedding.parameters())
    return Weights(quantized, model.num_parameters() - quantized - embeddings, embeddings)


def is_linear(module: nn.Module) -> bool:
    """Returns whether a module is a plain linear layer, as most models write it or as GPT-2 does."""
    return type(module) is nn.Linear or isinstance(module, Conv1D)


def sizes(linear: nn.Module) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a layer for which `is_linear` holds."""
    rows, columns = cast(torch.Tensor, linear.weight).shape
    return (rows, columns) if isinstance(linear, Conv1D) else (columns, rows)


def check_share(weights: Weights, quantization: str, model: str) -> str | None:
    """Returns a note for the user where a quantization leaves many weights unchanged, else None.

    Raises `UsageError` where it would change hardly any.
    """
    part = f"{weights.share:.0%} of its weights beside the embeddings"
    if weights.share < _LEAST_SHARE:
        raise UsageError(
            f"quantization: {quantization} would reach {part} of {model}; it quantizes linear layers only, not experts "
            "in one tensor nor layers of odd sizes; set quantization to none"
        )
    return None if weights.share >= _WHOLE_SHARE else f"quantization {quantization} reaches {part}, others stay plain"
