"""Causal attention of one row on a CPU, in float32, one block of queries after another.

A block sees the keys up to its own last token, so that little is computed and then masked. Heads that share keys are
one product, by MKL, or by oneDNN where that is faster (see `cpu_onednn`). Measurements: docs/lab/attention.md.
"""

from functools import cache

import torch

from lmsys_ray.engine import cpu
from lmsys_ray.engine.attention import cpu_onednn

LEAST_TOKENS = 120
"""Tokens that a row must have; shorter ones gain little."""

_BLOCK = 48


def is_faster(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Returns whether `attend` is faster than PyTorch's own kernel for query [tokens, ...] and key [seen, ...]."""
    in_float32 = query.device.type == "cpu" and query.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return in_float32 and len(query) >= cpu_onednn.STEP and len(key) >= LEAST_TOKENS


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor) -> None:
    """Lets the last tokens of a row, query [tokens, heads, dim], see themselves and all before them.

    Takes key and value [seen, kv_heads, dim]; writes to `attended` [tokens, heads, dim].
    """
    attend_ = _attend_with_mkl if cpu.mkl_is_fast() else cpu_onednn.attend
    attend_(query, key, value, scaling, attended)


def _attend_with_mkl(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor
) -> None:
    """Does as `attend`."""
    kv_heads, before = key.shape[1], len(key) - len(query)
    keys, values = key.permute(1, 2, 0), value.transpose(0, 1)
    by_group, target = (tensor.unflatten(1, (kv_heads, -1)).transpose(0, 1) for tensor in (query, attended))
    for start in range(0, len(query), _BLOCK):
        end = min(start + _BLOCK, len(query))
        tokens, visible = end - start, before + end
        queries = by_group[:, start:end].flatten(1, 2)  # [kv_heads, tokens * heads of each, dim]
        scores = torch.bmm(queries if scaling == 1 else queries * scaling, keys[..., :visible])
        scores[..., before + start :].add_(_causal_bias(tokens, queries.shape[1] // tokens))
        outputs = torch.bmm(torch.softmax(scores, dim=-1), values[:, :visible])
        target[:, start:end].copy_(outputs.unflatten(1, (tokens, -1)))


@cache
def _causal_bias(tokens: int, heads: int) -> torch.Tensor:
    """Returns [tokens * heads, tokens]: minus infinity where the second token comes after the first, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), float("-inf")).triu(1).repeat_interleave(heads, dim=0)
