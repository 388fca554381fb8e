"""Causal attention of one row on a CPU, in float32, a block of queries after another.

A block sees the keys up to its own last token, so that little is computed in vain; heads that share keys are one
product. MKL multiplies, or oneDNN where that is faster (see `onednn_blocks`). Milliseconds of a row of 9 heads of 64, 3
of them for keys, on each of two threads of an AMD EPYC (Zen 4):

    tokens                                     64     128     200     334     512   1,024   2,048
    PyTorch's kernel                         0.22    0.62    1.43    4.00    8.36    22.9      78
    by oneDNN, blocks of 128                 0.63    1.02    2.00    3.92    7.43    21.3      74
    these blocks, of 128 queries             0.23    0.67    1.29    3.16    6.77    20.4      82
    of 64                                    0.22    0.56    1.14    2.72    5.92    19.2      76
    of 48                                    0.24    0.55    1.16    2.67    5.73    18.8      74    kept
    of 32                                    0.23    0.56    1.18    2.77    5.73    19.1      74
    of 64, keys repeated for every head      0.25    0.61    1.26    3.02    6.57    20.9      85

Softmax worked in place in the blocks measured. PyTorch does not promise that it may; what is kept writes elsewhere,
which in the model made no difference beyond the noise (1 %). There, cut at 512 tokens, attention takes 12 % of the
time, where it took 17 % by oneDNN, and a pass 4 % less (8 rounds whose sides took turns, standard error 1 %). Keys,
values or queries copied together first are no faster.
"""

from functools import cache

import torch

from lmsys_ray.members.llama import devices, onednn_blocks

LEAST_TOKENS = 120
"""Of a row; shorter ones gain little."""

_BLOCK = 48


def gains(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Returns whether `attend` is faster than PyTorch's own kernel for query [tokens, ...] and key [seen, ...]."""
    in_float32 = query.device.type == "cpu" and query.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return in_float32 and len(query) >= onednn_blocks.STEP and len(key) >= LEAST_TOKENS


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor) -> None:
    """Lets the last tokens of a row, query [tokens, heads, dim], see themselves and all before them.

    Takes key and value [seen, kv_heads, dim], and writes to `attended`, as query.
    """
    by = _attend_by_mkl if devices.mkl_is_fast() else onednn_blocks.attend
    by(query, key, value, scaling, attended)


def _attend_by_mkl(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, attended: torch.Tensor
) -> None:
    """As `attend`."""
    kv_heads, before = key.shape[1], len(key) - len(query)
    keys, values = key.permute(1, 2, 0), value.transpose(0, 1)
    by_group, target = (tensor.unflatten(1, (kv_heads, -1)).transpose(0, 1) for tensor in (query, attended))
    for start in range(0, len(query), _BLOCK):
        end = min(start + _BLOCK, len(query))
        tokens, visible = end - start, before + end
        queries = by_group[:, start:end].flatten(1, 2)  # [kv_heads, tokens * heads of each, dim]
        scores = torch.bmm(queries if scaling == 1 else queries * scaling, keys[..., :visible])
        scores[..., before + start :].add_(_future(tokens, queries.shape[1] // tokens))
        found = torch.bmm(torch.softmax(scores, dim=-1), values[:, :visible])
        target[:, start:end].copy_(found.unflatten(1, (tokens, -1)))


@cache
def _future(tokens: int, heads: int) -> torch.Tensor:
    """Minus infinity [tokens * heads, tokens] where the second token comes after the first, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), float("-inf")).triu(1).repeat_interleave(heads, dim=0)
