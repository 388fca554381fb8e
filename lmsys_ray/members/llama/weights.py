"""How many weights a model has and which of them a quantization reaches, counted without loading any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from lmsys_ray.errors import UsageError

HEAD = "score"
"""The module that is never quantized."""

_LEAST_SHARE = 0.1
_WHOLE_SHARE = 0.9


@dataclass(frozen=True)
class Weights:
    """The weights of a classifier, by what a quantization makes of them."""

    reached: int
    """Of linear layers that become quantized ones."""
    others: int
    """That keep their type: norms, the head, experts in three dimensions, layers of sizes that do not fit."""
    embeddings: int = 0
    """That keep theirs too, and cost no time."""

    @property
    def share(self) -> float:
        """The part of the weights, embeddings aside, that is quantized, 0 to 1."""
        return self.reached / max(1, self.reached + self.others)

    def bytes(self, reached: float, others: float) -> float:
        """Returns what they take where a weight that is reached takes `reached` bytes, and another `others`."""
        return self.reached * reached + (self.others + self.embeddings) * others


def count(config: PreTrainedConfig, reaches: Callable[[int, int], bool] = lambda inputs, outputs: True) -> Weights:
    """Returns the weights of the classifier of a config, of which linear layers are quantized that `reaches` allows.

    It is asked for each layer, of so many inputs and outputs. Experts whose weights are one tensor of three dimensions
    are no linear layers, for bitsandbytes neither.
    """
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    embedding = model.get_input_embeddings()
    kept = [HEAD, *(model._keep_in_fp32_modules or [])]
    reached = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if is_linear(module) and should_convert_module(name, kept) and reaches(*sizes(module))
    )
    embeddings = sum(parameter.numel() for parameter in embedding.parameters())
    return Weights(reached, model.num_parameters() - reached - embeddings, embeddings)


def is_linear(module: nn.Module) -> bool:
    """Returns whether a module is a plain linear layer, as most models write it or as GPT-2 does."""
    return type(module) is nn.Linear or isinstance(module, Conv1D)


def sizes(linear: nn.Module) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a layer for which `is_linear` holds."""
    rows, columns = cast(torch.Tensor, linear.weight).shape
    return (rows, columns) if isinstance(linear, Conv1D) else (columns, rows)


def check_share(weights: Weights, quantization: str, model: str) -> str | None:
    """Returns what to say where a quantization leaves many weights alone; None where it reaches nearly all.

    Raises `UsageError` where it reaches next to none.
    """
    told = f"{weights.share:.0%} of its weights beside the embeddings"
    if weights.share < _LEAST_SHARE:
        raise UsageError(
            f"quantization: {quantization} would reach {told} of {model}; it quantizes linear layers only, not experts "
            "in one tensor nor layers of odd sizes; set quantization to none"
        )
    return None if weights.share >= _WHOLE_SHARE else f"quantization {quantization} reaches {told}, others stay plain"
