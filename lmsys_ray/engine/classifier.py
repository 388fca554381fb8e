"""A loaded model with its head, and the results by which it is checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lmsys_ray.engine.models.encoder import TransformersEncoder
from lmsys_ray.engine.models.llama import PackedDecoder
from lmsys_ray.engine.models.transformers import TransformersDecoder


@dataclass(frozen=True)
class Expected:
    """What transformers computes for a few rows, one at a time."""

    flat: np.ndarray
    """Token ids of all rows."""
    starts: np.ndarray
    """Row i is `flat[starts[i]:starts[i + 1]]`."""
    logits: torch.Tensor
    """float32 [rows, labels], on the CPU."""
    allowed: float
    """The largest difference of a logit that is accepted."""
    allowed_rounded: float | None
    """The same with inputs rounded to int8 by bitsandbytes; none where nothing is. `logits` are of unrounded ones."""
    changed: tuple[tuple[np.ndarray, list[int]], ...]
    """Other ids for rows of the same lengths, and which rows are unchanged: their logits must be unchanged too.

    Empty where that would add nothing.
    """
    allowed_influence: float
    """The largest change of a logit in such a row that is accepted."""


@dataclass(frozen=True)
class Classifier:
    """A backbone, which returns hidden states of the tokens that the head reads, and a float32 head of some logits.

    An encoder has its head within, and none here.
    """

    backbone: PackedDecoder | TransformersDecoder | TransformersEncoder
    head: torch.nn.Module
    columns: list[int]
    """The columns of the head that are read: of a classifier those of a, b and tie."""
    pad_id: int
    """The id in padded slots."""
    pooling_pad: int | None
    """The head reads the last token that is not this one; none: it reads the last token of each row."""
    causal: bool
    """Whether no token sees those that follow it."""
    long_beyond: int
    """The number of tokens beyond which a row uses other rotary angles (longrope)."""
    device: torch.device
    """Where the input goes; the head may lie on another GPU."""
    embedded: int
    """The number of ids that have an embedding."""
    expected: Expected
    """What transformers computes for a few rows."""
    depends_on_batch: bool
    """Whether scores depend on the rest of the micro-batch by more than rounding."""
    notes: tuple[str, ...]
    """What the user should know about how it was loaded."""
    plain: bool = False
    """Whether linear layers are PyTorch's own."""

    @property
    def runs_concurrently(self) -> bool:
        """Whether several threads may each run a micro-batch, and rows may share their prefixes."""
        return isinstance(self.backbone, PackedDecoder) and self.device.type != "cuda"
