"""The forward pass of Llama and related decoders over packed rows, without what a classifier does not need.

Compared with the layers of transformers, Q, K and V are one product, and on a GPU gate and up are another; the steps
between products are the few of `pointwise`; and the last layer computes only each row's last token, which the head
reads.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import LlamaModel, MistralModel, PreTrainedModel, Qwen2Model

from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.linear.forms import LinearFactory, fused, interleaved_rotary, scaled
from lmsys_ray.engine.pointwise import gated, rms_norm, rotate, rotate_pairs_

Angles = tuple[torch.Tensor, ...]
"""The rotations of heads by position, as cosine and sine or as complex numbers; [tokens, 1, head_dim / 2] each."""


def fits(backbone: PreTrainedModel) -> bool:
    """Returns whether `PackedDecoder` computes what `backbone` does: the same layers, plain weights, one device.

    Its forward pass changes no state, so that several threads may run it. Rotary angles that depend on the longest row
    would.
    """
    if type(backbone) not in (LlamaModel, MistralModel, Qwen2Model) or backbone.config.hidden_act != "silu":
        return False
    if cast(Any, backbone).rotary_emb.rope_type in ("dynamic", "longrope"):
        return False
    layers = cast(Any, backbone).layers
    plain = all(type(linear) is nn.Linear for layer in layers for linear in _projections(layer))
    window = getattr(backbone.config, "sliding_window", None)  # Mistral has one; Qwen2 has one in each layer
    windows = [getattr(layer.self_attn, "sliding_window", window) for layer in layers]
    return plain and not any(windows) and len({parameter.device for parameter in backbone.parameters()}) == 1


def _projections(layer: Any) -> list[nn.Module]:
    own, feed_forward = layer.self_attn, layer.mlp
    in_attention = [own.q_proj, own.k_proj, own.v_proj, own.o_proj]
    return [*in_attention, feed_forward.gate_proj, feed_forward.up_proj, feed_forward.down_proj]


class PackedDecoder(nn.Module):
    """Takes over the weights of a backbone that `fits`, whose own layers are removed."""

    def __init__(self, backbone: Any, factory: LinearFactory) -> None:
        super().__init__()
        self.embedding = backbone.embed_tokens
        self.rotary = backbone.rotary_emb
        self.norm_weight = backbone.norm.weight.detach()
        self.epsilon = backbone.norm.variance_epsilon
        self.layers = nn.ModuleList()
        while len(backbone.layers):  # one by one, so that few weights exist twice at a time
            kind = DecoderLayer if len(backbone.layers) > 1 else LastDecoderLayer
            self.layers.append(kind(backbone.layers.pop(0), factory))

    def forward(self, input_ids: torch.Tensor, last: torch.Tensor, rows: attention.Layout) -> torch.Tensor:
        """Returns the hidden states [rows, dim] at the positions `last` [rows] of `input_ids` [1, tokens]."""
        hidden = self.embedding(input_ids[0])
        cosine, sine = (angle[0, :, None].chunk(2, dim=-1)[0] for angle in self.rotary(hidden[None], rows.position_ids))
        angles = (torch.complex(cosine, sine),) if self.layers[0].interleaved else (cosine, sine)
        for layer in self.layers:
            hidden = layer(hidden, angles, rows, last)
        return rms_norm(hidden, self.norm_weight, self.epsilon)


class DecoderLayer(nn.Module):
    """Attention and a gated feed-forward layer, each with a norm before it and a residual around it."""

    def __init__(self, layer: Any, factory: LinearFactory) -> None:
        super().__init__()
        own, feed_forward = layer.self_attn, layer.mlp
        on_cpu = own.o_proj.weight.device.type == "cpu"
        self.head_dim = own.head_dim
        self.heads = own.q_proj.out_features // own.head_dim
        self.kv_heads = own.k_proj.out_features // own.head_dim
        self.scaling = own.scaling
        self.interleaved = on_cpu and own.q_proj.weight.dtype == torch.float32
        query, key = own.q_proj, own.k_proj
        if self.interleaved:
            query, key = (interleaved_rotary(linear, self.head_dim) for linear in (query, key))
            query, self.scaling = scaled(query, self.scaling), 1.0
        self.projections = nn.ModuleList(factory(fused(group)) for group in self._groups(query, key, own.v_proj))
        self.output = factory(own.o_proj)
        gate_and_up = [feed_forward.gate_proj, feed_forward.up_proj]
        self.intermediate = feed_forward.gate_proj.out_features
        # On a CPU one product is no faster, and the halves of its rows are slower to work on
        # (docs/lab/cpu_products.md).
        self.gate_and_up = nn.ModuleList(map(factory, gate_and_up if on_cpu else [fused(gate_and_up)]))
        self.down = factory(feed_forward.down_proj)
        self.norm_weights = layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach()
        self.epsilon = layer.input_layernorm.variance_epsilon

    def forward(self, hidden: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor) -> torch.Tensor:
        """Maps [tokens, dim] to [tokens, dim]; in the last layer to [rows, dim], at the positions `last` [rows]."""
        attended = self._attended(rms_norm(hidden, self.norm_weights[0], self.epsilon), angles, rows, last)
        hidden = self.output(attended).add_(self._residual(hidden, last))
        normed = rms_norm(hidden, self.norm_weights[1], self.epsilon)
        gate, values = (part for linear in self.gate_and_up for part in linear(normed).split(self.intermediate, dim=-1))
        return self.down(gated(gate, values)).add_(hidden)

    def _groups(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> list[list[nn.Linear]]:
        """Returns which projections are computed as one product."""
        return [[query, key, value]]

    def _residual(self, hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Returns what is added to the output of attention."""
        return hidden

    def _attended(
        self, normed: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor
    ) -> torch.Tensor:
        """Returns [tokens, heads * head_dim]."""
        (projection,) = self.projections
        heads = self._by_head(projection(normed))
        rotated = self._rotated(heads[:, : self.heads + self.kv_heads], angles)
        query, key = rotated.split([self.heads, self.kv_heads], dim=1)
        value = heads[:, self.heads + self.kv_heads :]
        return attention.within_rows(query, key, value, rows, self.scaling).flatten(1)

    def _by_head(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.unflatten(-1, (-1, self.head_dim))

    def _rotated(self, heads: torch.Tensor, angles: Angles) -> torch.Tensor:
        """Returns [tokens, heads, head_dim] rotated by the positions of the tokens."""
        return rotate_pairs_(heads, *angles) if self.interleaved else rotate(heads, *angles)


class LastDecoderLayer(DecoderLayer):
    """Computes only the last token of each row; of the others it needs keys and values."""

    def _groups(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> list[list[nn.Linear]]:
        return [[query], [key, value]]

    def _residual(self, hidden: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return hidden[last]

    def _attended(
        self, normed: torch.Tensor, angles: Angles, rows: attention.Layout, last: torch.Tensor
    ) -> torch.Tensor:
        """Returns [rows, heads * head_dim]."""
        of_query, of_key_and_value = self.projections
        query = self._rotated(self._by_head(of_query(normed[last])), tuple(angle[last] for angle in angles))
        key, value = self._by_head(of_key_and_value(normed)).split(self.kv_heads, dim=1)
        key = self._rotated(key, angles)
        return attention.of_last_tokens(query, key, value, rows, self.scaling).flatten(1)
