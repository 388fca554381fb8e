"""`query_blocks` with products by oneDNN, for processors on which MKL uses half of AVX-512.

Each product of oneDNN has a fixed cost of some 13 microseconds, so that blocks are larger here than for MKL, and the
heads that share keys are multiplied group by group, by all the keys that a block sees. Milliseconds of a row of 9 heads
of 64, 3 of them for keys, on one thread of an AMD EPYC (Zen 5):

    tokens                                     64     128     200     330     512   1,024   2,048
    PyTorch's kernel                         0.13    0.45    1.07    2.81    6.21    17.7      59
    blocks of 128 queries, by torch.bmm      0.14    0.36    0.75    1.74    4.37    17.7      62
    these blocks, of 64 queries              0.18    0.40    0.74    1.51    2.88     9.3      34
    of 128                                   0.17    0.35    0.69    1.36    2.62    11.2      37    kept
    of 256                                   0.17    0.35    0.72    2.92    4.17    13.7      40
"""

from functools import cache

import torch

_BLOCK = 128

STEP = 16
"""Sizes of products are multiples of this: oneDNN builds a kernel for each new size, which takes 0.4 ms."""


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor) -> None:
    """Lets the last tokens of a row, query [tokens, heads, dim], see themselves and all before them.

    Takes key and value [seen, kv_heads, dim], and writes to `attended`, as query.
    """
    kv_heads, before = key.shape[1], len(key) - len(query)
    keys, values = _padded(key.transpose(0, 1)), _padded(value.transpose(0, 1)).mT.contiguous()
    by_group, target = (tensor.unflatten(1, (kv_heads, -1)).transpose(0, 1) for tensor in (query, attended))
    for first in range(0, len(query), _BLOCK):
        last = min(first + _BLOCK, len(query))
        begin = max(0, last - _round_up(last - first))  # the last block computes a few queries of the one before again
        start, visible = before + begin, _round_up(before + last)
        for group in range(kv_heads):
            queries = by_group[group, begin:last].transpose(0, 1).flatten(0, 1)  # [heads * tokens, dim]
            scores = _product(queries if scaling == 1 else queries * scaling, keys[group, :visible])
            scores.unflatten(0, (-1, last - begin))[..., start:].add_(_future(last - begin, visible - start))
            weights = torch.softmax(scores, dim=-1)
            found = _product(weights, values[group, :, :visible].contiguous())
            target[group, begin:last].copy_(found.unflatten(0, (-1, last - begin)).transpose(0, 1))


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns [rows, columns] of left [rows, inner] and right [columns, inner]; `right` must be contiguous.

    oneDNN multiplies other layouts by a reference implementation, a thousand times slower.
    """
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """Returns [kv_heads, tokens, dim] with zeros behind, up to the next step: what no query sees."""
    heads, tokens, dim = tensor.shape
    padded = tensor.new_zeros(heads, _round_up(tokens), dim)
    padded[:, :tokens] = tensor
    return padded


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


@cache
def _future(tokens: int, seen: int) -> torch.Tensor:
    """Minus infinity [tokens, seen] where the second token comes after the first, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, seen), float("-inf")).triu(1)
