"""Any encoder with a classifier's head, run whole by transformers on padded rows."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.linear.forms import LinearFactory, replace_linears


class TransformersEncoder(nn.Module):
    """An encoder, its own pooling and head; its plain linear layers are replaced by what `factory` makes of them."""

    def __init__(self, model: PreTrainedModel, factory: LinearFactory) -> None:
        super().__init__()
        self.model = model
        takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        self.types = getattr(model.config, "type_vocab_size", 0) > 1 and takes_types
        """Whether it tells the two texts of a pair apart."""
        replace_linears(getattr(model, model.base_model_prefix), factory)

    def forward(
        self,
        input_ids: torch.Tensor,
        last: torch.Tensor,
        rows: attention.Layout | None = None,
        mask: torch.Tensor | None = None,
        types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns logits [rows, outputs] of `input_ids` [rows, width], padded on the right.

        `mask` [rows, width] is 1 where a token is real, and `types` [rows, width] where it is of the second text.
        `last` and `rows` are those of decoders.
        """
        given = {"token_type_ids": types} if types is not None and self.types else {}
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=mask, **given).logits
        return logits
