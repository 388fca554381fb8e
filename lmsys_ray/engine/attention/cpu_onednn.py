"""Causal attention of one row by oneDNN's products, for processors on which MKL uses half of AVX-512.

Each product has a fixed cost, so that blocks are larger than in `cpu_blocked`, and heads that share keys are multiplied
group by group, by all keys that a block sees. Measurements: docs/lab/attention.md.
"""

from functools import cache

import torch

from lmsys_ray.engine import torch_internals

_BLOCK = 128

STEP = 16
"""Sizes of products are multiples of this, since oneDNN builds a kernel for each new size (0.4 ms)."""


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor) -> None:
    """Lets the last tokens of a row, query [tokens, heads, dim], see themselves and all before them.

    Takes key and value [seen, kv_heads, dim]; writes to `attended` [tokens, heads, dim].
    """
    kv_heads, before = key.shape[1], len(key) - len(query)
    keys, values = _padded(key.transpose(0, 1)), _padded(value.transpose(0, 1)).mT.contiguous()
    by_group, target = (tensor.unflatten(1, (kv_heads, -1)).transpose(0, 1) for tensor in (query, attended))
    for first in range(0, len(query), _BLOCK):
        last = min(first + _BLOCK, len(query))
        begin = max(0, last - _round_up(last - first))  # the last block repeats a few queries of the one before
        start, visible = before + begin, _round_up(before + last)
        for group in range(kv_heads):
            queries = by_group[group, begin:last].transpose(0, 1).flatten(0, 1)  # [heads * tokens, dim]
            scores = _product(queries if scaling == 1 else queries * scaling, keys[group, :visible])
            scores.unflatten(0, (-1, last - begin))[..., start:].add_(_causal_bias(last - begin, visible - start))
            weights = torch.softmax(scores, dim=-1)
            outputs = _product(weights, values[group, :, :visible].contiguous())
            target[group, begin:last].copy_(outputs.unflatten(0, (-1, last - begin)).transpose(0, 1))


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns [rows, columns] of left [rows, inner] and right [columns, inner].

    `right` must be contiguous: oneDNN multiplies other layouts a thousand times more slowly.
    """
    return torch_internals.linear(left, right, None)


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """Returns [kv_heads, tokens, dim] with zeros appended up to the next step, which no query sees."""
    heads, tokens, dim = tensor.shape
    padded = tensor.new_zeros(heads, _round_up(tokens), dim)
    padded[:, :tokens] = tensor
    return padded


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


@cache
def _causal_bias(tokens: int, seen: int) -> torch.Tensor:
    """Returns [tokens, seen]: minus infinity where the second token comes after the first, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, seen), float("-inf")).triu(1)
