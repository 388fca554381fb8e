"""Which rows begin with the same tokens, so that these are computed once: pure planning on token ids.

In a causal decoder a token depends only on itself and those before it. Both orders of a conversation share its prompt,
as do pairs that answer the same prompt. As prefix caching in inference servers, but with the rows of a shard known
beforehand, and on CPUs only, where each row has its own call of attention. Measurements: docs/lab/prefixes.md.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

_LEAST_TOKENS = 16
"""Tokens that rows must share to be put together; the few that a template begins with are not worth it."""


class Prefixes(NamedTuple):
    """Rows that are computed together, in order, and how much each takes over from the one before it."""

    units: list[np.ndarray]
    """Indices of rows; every row is in exactly one."""
    shared: np.ndarray
    """How many first tokens each row shares with the one before it in its unit, int64 [rows]; 0 for the first."""


def find_prefixes(flat: np.ndarray, starts: np.ndarray, most_tokens: int) -> Prefixes:
    """Groups rows into units by their first tokens; row i is `flat[starts[i]:starts[i + 1]]`.

    A unit of more than two rows computes at most `most_tokens` tokens. Each row keeps at least its last token, which
    the head reads.
    """
    rows = [flat[start:stop] for start, stop in pairwise(starts)]
    keys = [row.astype(">u4").tobytes() for row in rows]  # sorted as bytes, rows are sorted by their ids
    shared = np.zeros(len(rows), np.int64)
    units: list[list[int]] = []
    load = 0
    for row in sorted(range(len(rows)), key=keys.__getitem__):
        length = len(rows[row])
        common = min(_common(rows[units[-1][-1]], rows[row]), length - 1) if units else 0
        fits = common >= _LEAST_TOKENS and (len(units[-1]) == 1 or load + length - common <= most_tokens)
        if fits:
            units[-1].append(row)
            shared[row] = common
            load += length - common
        else:
            units.append([row])
            load = length
    return Prefixes([np.array(unit) for unit in units], shared)


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Returns how many ids two rows share at their beginning."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length
