"""An encoder whose output is the average of its tokens' states, with the interface of a classifier of transformers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class AveragedEncoder(nn.Module):
    """Returns the mean state of each text, float32 [rows, dim], as `logits`.

    Where `slots` is given, texts are padded to so many, and padded slots count in the mean as tokens do; they stay
    hidden from the tokens. Otherwise the mean is that of the real tokens.
    """

    base_model_prefix = "encoder"

    def __init__(self, encoder: PreTrainedModel, pad_id: int, slots: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: Any = encoder.config
        self.pad_id = pad_id
        self.slots = slots

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.encoder.dtype

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder itself."""
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embeddings of tokens."""
        return self.encoder.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        """Averages the states of `input_ids` [rows, width]; `attention_mask` [rows, width] is 1 for real tokens."""
        if self.slots is None:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
            real = attention_mask[..., None].to(states)
            return SequenceClassifierOutput(logits=(states * real).sum(1) / real.sum(1))
        missing = self.slots - input_ids.shape[1]
        ids = functional.pad(input_ids, (0, missing), value=self.pad_id)
        states = padded_states(self.encoder, ids, functional.pad(attention_mask, (0, missing)))
        return SequenceClassifierOutput(logits=states.float().mean(1))


def padded_states(encoder: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns the states [rows, width, dim] of all slots, where padded ones see the real tokens, as in KerasNLP.

    transformers' DeBERTa clears the embeddings of padded slots and lets these see each other alone, which changes only
    their own states: they matter where padding counts.
    """
    parts: Any = encoder
    if encoder.config.model_type != "deberta-v2":
        return cast(torch.Tensor, encoder(input_ids=ids, attention_mask=mask).last_hidden_state)
    return cast(torch.Tensor, parts.encoder(parts.embeddings(ids), mask[:, None, None, :]).last_hidden_state)
