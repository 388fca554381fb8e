"""The forward pass of Llama and its kin over packed rows, with what a classifier does not need left out.

Against the same layers as transformers runs them: Q, K and V are one product, and on a GPU gate and up another; the
steps between them are the few of `pointwise`; and in the last layer only the last token of each row asks and goes on,
since the head reads nothing else.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import LlamaModel, MistralModel, PreTrainedModel, Qwen2Model

from lmsys_ray.members.llama import attention
from lmsys_ray.members.llama.linear import Form, replace_linears, scaled, side_by_side, with_pairs_together
from lmsys_ray.members.llama.pointwise import gated, rms_norm, rotate, rotate_pairs_

Angles = tuple[torch.Tensor, ...]
"""By which the positions of tokens turn their heads: cosine and sine, or complex numbers; [tokens, 1, head_dim / 2]."""


def fits(backbone: PreTrainedModel) -> bool:
    """Returns whether `PackedDecoder` computes what `backbone` does: exactly its layers, plain weights, one device.

    Its forward pass changes no state, so that several threads may run it; angles that follow the longest row would.
    """
    if type(backbone) not in (LlamaModel, MistralModel, Qwen2Model) or backbone.config.hidden_act != "silu":
        return False
    if cast(Any, backbone).rotary_emb.rope_type in ("dynamic", "longrope"):
        return False
    layers = cast(Any, backbone).layers
    plain = all(type(linear) is nn.Linear for layer in layers for linear in _projections(layer))
    window = getattr(backbone.config, "sliding_window", None)  # Mistral's; Qwen2 says it of each layer
    windows = [getattr(layer.self_attn, "sliding_window", window) for layer in layers]
    return plain and not any(windows) and len({parameter.device for parameter in backbone.parameters()}) == 1


def _projections(layer: Any) -> list[nn.Module]:
    own, feed_forward = layer.self_attn, layer.mlp
    in_attention = [own.q_proj, own.k_proj, own.v_proj, own.o_proj]
    return [*in_attention, feed_forward.gate_proj, feed_forward.up_proj, feed_forward.down_proj]


class PackedDecoder(nn.Module):
    """Takes over the weights of a backbone that `fits`; the backbone's own layers are emptied."""

    def __init__(self, backbone: Any, form: Form) -> None:
        super().__init__()
        self.embedding = backbone.embed_tokens
        self.rotary = backbone.rotary_emb
        self.norm_weight = backbone.norm.weight.detach()
        self.epsilon = backbone.norm.variance_epsilon
        self.layers = nn.ModuleList()
        while len(backbone.layers):  # one by one, so that no weight is there twice for long
            kind = DecoderLayer if len(backbone.layers) > 1 else LastDecoderLayer
            self.layers.append(kind(backbone.layers.pop(0), form))

    def forward(self, input_ids: torch.Tensor, last: torch.Tensor, rows: attention.Layout) -> torch.Tensor:
        """Returns the hidden states [rows, dim] at the positions `last` [rows] of `input_ids` [1, tokens]."""
        hidden = self.embedding(input_ids[0])
        cosine, sine = (angle[0, :, None].chunk(2, dim=-1)[0] for angle in self.rotary(hidden[None], rows.position_ids))
        angles = (torch.complex(cosine, sine),) if self.layers[0].turns_pairs else (cosine, sine)
        for layer in self.layers:
            hidden = layer(hidden, angles, rows, last)
        return rms_norm(hidden, self.norm_weight, self.epsilon)


class DecoderLayer(nn.Module):
    """Attention and a gated feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, layer: Any, form: Form) -> None:
        super().__init__()
        own, feed_forward = layer.self_attn, layer.mlp
        on_cpu = own.o_proj.weight.device.type == "cpu"
        self.head_dim = own.head_dim
        self.heads = own.q_proj.out_features // own.head_dim
        self.kv_heads = own.k_proj.out_features // own.head_dim
        self.scaling = own.scaling
        self.turns_pairs = on_cpu and own.q_proj.weight.dtype == torch.float32
        query, key = own.q_proj, own.k_proj
        if self.turns_pairs:
            query, key = (with_pairs_together(linear, self.head_dim) for linear in (query, key))
            query, self.scaling = scaled(query, self.scaling), 1.0
        self.projections = nn.ModuleList(form(side_by_side(group)) for group in self._groups(query, key, own.v_proj))
        self.output = form(own.o_proj)
        gate_and_up = [feed_forward.gate_proj, feed_forward.up_proj]
        self.intermediate = feed_forward.gate_proj.out_features
        # On a CPU one product gains nothing, and halves of its rows are slower to work on (see `prepacked`).
        self.gate_and_up = nn.ModuleList(map(form, gate_and_up if on_cpu else [side_by_side(gate_and_up)]))
        self.down = form(feed_forward.down_proj)
        self.norm_weights = layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()
        self.epsilon = layer.input_layernorm.variance_epsilon

    def forward(self, hidden: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor) -> torch.Tensor:
        """Maps [tokens, dim] to the same, or in the last layer to [rows, dim], of the positions `last` [rows]."""
        attended = self._attended(rms_norm(hidden, self.norm_weights[0], self.epsilon), angles, rows, last)
        hidden = self.output(attended).add_(self._going_on(hidden, last))
        normed = rms_norm(hidden, self.norm_weights[1], self.epsilon)
        gate, values = (part for linear in self.gate_and_up for part in linear(normed).split(self.intermediate, dim=-1))
        return self.down(gated(gate, values)).add_(hidden)

    def _groups(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> list[list[nn.Linear]]:
        """Returns which projections are one product."""
        return [[query, key, value]]

    def _going_on(self, hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return hidden

    def _attended(
        self, normed: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor
    ) -> torch.Tensor:
        """Returns [tokens, heads * head_dim]."""
        (projection,) = self.projections
        heads = self._by_head(projection(normed))
        turned = self._turned(heads[:, : self.heads + self.kv_heads], angles)
        query, key = turned.split([self.heads, self.kv_heads], dim=1)
        value = heads[:, self.heads + self.kv_heads :]
        return attention.within_rows(query, key, value, rows, self.scaling).flatten(1)

    def _by_head(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (-1, self.head_dim))

    def _turned(self, heads: torch.Tensor, angles: Angles) -> torch.Tensor:
        """Returns [tokens, heads, head_dim] turned by the positions of the tokens."""
        return rotate_pairs_(heads, *angles) if self.turns_pairs else rotate(heads, *angles)


class LastDecoderLayer(DecoderLayer):
    """Computes what the last token of each row becomes; the others are but seen by it."""

    def _groups(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> list[list[nn.Linear]]:
        return [[query], [key, value]]

    def _going_on(self, hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return hidden[last]

    def _attended(
        self, normed: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor
    ) -> torch.Tensor:
        """Returns [rows, heads * head_dim]."""
        of_query, of_key_and_value = self.projections
        query = self._turned(self._by_head(of_query(normed[last])), tuple(angle[last] for angle in angles))
        key, value = self._by_head(of_key_and_value(normed)).split(self.kv_heads, dim=1)
        key = self._turned(key, angles)
        return attention.of_last_tokens(query, key, value, rows, self.scaling).flatten(1)


class TransformersDecoder(nn.Module):
    """Any decoder, run by transformers; its plain linear layers take another form."""

    def __init__(self, backbone: PreTrainedModel, form: Form) -> None:
        super().__init__()
        self.backbone = backbone
        self._attention: str = backbone.config._attn_implementation
        replace_linears(backbone, form)

    def prepare(self, packed: bool, masked: bool) -> None:
        """Chooses the attention for rows laid end to end where `packed`, else for padded ones, `masked` or not."""
        backbone, chosen = self.backbone, self._attention
        device = next(backbone.get_input_embeddings().parameters()).device
        wanted = chosen if masked else attention.implementation(packed, chosen, device, backbone.dtype)
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

        These are [1, tokens] where `rows` lays packed rows out, [rows, width] without. Padding stands on the right;
        `mask` [rows, width], 1 where a token is real, is for models whose tokens see what follows them.
        """
        keywords = rows.keywords() if rows else {"attention_mask": mask} if mask is not None else {}
        hidden = self.backbone(input_ids=input_ids, use_cache=False, **keywords).last_hidden_state
        return hidden.flatten(0, 1)[last.to(hidden.device)]
