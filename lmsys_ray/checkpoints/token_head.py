"""The head of a language model, reduced to the logits of a few tokens.

What a language model does with its last hidden state beside a product, such as capping logits (Gemma 2) or scaling them
(Granite, Cohere), is done by transformers' own code, whose backbone is taken out and whose product has few rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from lmsys_ray.checkpoints.heads import read_tensor
from lmsys_ray.checkpoints.reading import READING_ERRORS, reason
from lmsys_ray.errors import UsageError

_STORED_AS = ("lm_head", "embed_out")
"""What files call the head of a language model, whatever transformers calls it by now."""

_PROBED = 5
"""Hidden states with which two heads are compared."""


class TokenHead(nn.Module):
    """Returns logits [..., tokens] of hidden states [..., hidden], computed by a language model's own forward pass."""

    def __init__(self, causal: PreTrainedModel, product: nn.Linear) -> None:
        super().__init__()
        setattr(causal, causal.base_model_prefix, _Given())
        causal.set_output_embeddings(product)
        self.causal = causal

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps [..., hidden] to [..., tokens]."""
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        logits: torch.Tensor = self.causal(inputs_embeds=rows, use_cache=False).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


class _Given(nn.Module):
    """Stands for a backbone whose hidden states are known."""

    def forward(self, *arguments: Any, inputs_embeds: torch.Tensor, **keywords: Any) -> BaseModelOutputWithPast:
        return _Output(last_hidden_state=inputs_embeds)


class _Output(BaseModelOutputWithPast):
    """Has nothing of what backbones return beside hidden states, such as the routes of experts."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@torch.no_grad()
def token_head(model: PreTrainedModel, directory: Path, ids: tuple[int, ...], name: str) -> nn.Module:
    """Returns the float32 head that gives the logits of the tokens `ids`; a linear layer where that is all it is.

    `model` is the loaded classifier of the same backbone, whose files are in `directory`. Raises `UsageError` where the
    model `name` has no language model's head, or one that is not a product of its last hidden state.
    """
    try:
        with torch.device("meta"):
            causal = AutoModelForCausalLM.from_config(model.config)
        product = _product(causal, model, directory, ids, name)
        head = TokenHead(causal, product).eval().requires_grad_(False)
        probe = torch.randn(_PROBED, product.in_features, generator=torch.Generator().manual_seed(0))
        probe = probe.to(product.weight.device)
        logits = head(probe)
    except READING_ERRORS as error:
        raise UsageError(
            f"model: the head of {name} as a language model cannot be computed here ({reason(error)}); name another"
        ) from None
    if logits.shape != (_PROBED, len(ids)) or not logits.isfinite().all():
        raise UsageError(
            f"model: the head of {name} as a language model gives no logits of single tokens; name another"
        )
    return product if torch.equal(logits, product(probe)) else head


def _product(
    causal: PreTrainedModel, model: PreTrainedModel, directory: Path, ids: tuple[int, ...], name: str
) -> nn.Linear:
    output = causal.get_output_embeddings()
    path = next((path for path, module in causal.named_modules() if module is output and path), None)
    if path is None or not isinstance(output, nn.Linear):
        raise UsageError(f"model: {name} has no head of a language model; name a causal language model")
    rows, names = list(ids), dict.fromkeys((path, *_STORED_AS))
    weights = {stored: read_tensor(directory, f"{stored}.weight", name, rows) for stored in names}
    stored, weight = next(((s, w) for s, w in weights.items() if w is not None), (path, None))
    embedding: Any = model.get_input_embeddings()
    if weight is None:
        if not model.config.get_text_config().tie_word_embeddings:
            raise UsageError(
                f"model: the files of {name} hold no {path}.weight, the head of a language model; fetch the whole model"
            )
        weight = embedding.weight[rows].float()
    bias = None if output.bias is None else read_tensor(directory, f"{stored}.bias", name, rows)
    product = nn.Linear(weight.shape[1], len(rows), bias=bias is not None, device=embedding.weight.device)
    product.weight.copy_(weight)
    if bias is not None:
        product.bias.copy_(bias)
    return product.requires_grad_(False)
