"""Any decoder that transformers has, with the linear layers and the attention of this package."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.attention import transformers_hooks
from lmsys_ray.engine.linear.forms import LinearFactory, replace_linears


class TransformersDecoder(nn.Module):
    """Any decoder, run by transformers; its plain linear layers are replaced by what `factory` makes of them."""

    def __init__(self, backbone: PreTrainedModel, factory: LinearFactory) -> None:
        super().__init__()
        self.backbone = backbone
        self._attention: str = backbone.config._attn_implementation
        replace_linears(backbone, factory)

    def prepare(self, packed: bool, masked: bool) -> None:
        """Chooses the attention for rows that are `packed` end to end, or else padded, `masked` or not."""
        backbone, chosen = self.backbone, self._attention
        device = next(backbone.get_input_embeddings().parameters()).device
        wanted = chosen if masked else transformers_hooks.implementation(packed, chosen, device, backbone.dtype)
        if wanted != backbone.config._attn_implementation:
            backbone.set_attn_implementation(wanted)

    def forward(
        self,
        input_ids: torch.Tensor,
        last: torch.Tensor,
        rows: attention.Layout | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the hidden states [rows, dim] at the positions `last` [rows] of `input_ids`, flattened.

        These are [1, tokens] where `rows` is the layout of packed rows, else [rows, width]. Padding is on the right;
        `mask` [rows, width], 1 where a token is real, is for models whose tokens see those that follow.
        """
        keywords = rows.keywords() if rows else {"attention_mask": mask} if mask is not None else {}
        hidden = self.backbone(input_ids=input_ids, use_cache=False, **keywords).last_hidden_state
        return hidden.flatten(0, 1)[last.to(hidden.device)]
