"""Which rows share a micro-batch: pure planning on row lengths.

The cost of a row is its slots, padding included. Without padding, rows of any length are concatenated and only the
token budget has to be filled (best fit, longest first); with padding, rows of similar length belong together.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Literal

import numpy as np

Padding = Literal["none", "longest", "max_length"]

_LEAST_EVEN, _MOST_EVEN = 4, 16
"""The number of even micro-batches is a power of two in this range, or a multiple of the larger, so that the few of a
shard divide evenly among 2, 4, 8 or 16 cores."""

_LEAST_TOKENS = 256
"""Average tokens of an even micro-batch; with fewer, matrix products lose more than an idle core costs."""


def plan(lengths: np.ndarray, batch_tokens: int, padding: Padding, max_length: int) -> list[np.ndarray]:
    """Returns micro-batches as arrays of indices into `lengths` [rows]; every row is in exactly one.

    No micro-batch takes more than `batch_tokens` slots, except for a single row of more tokens. `none` fills the budget
    with rows of any length; `longest` takes the longest rows first; `max_length` takes them in order, as the reference
    notebook does. Long rows come first, so that a pass does not end with a long tail.
    """
    if padding == "max_length":
        rows = max(1, batch_tokens // max_length)
        return [np.arange(start, min(start + rows, len(lengths))) for start in range(0, len(lengths), rows)]
    order = np.argsort(-lengths, kind="stable")
    if padding == "longest":
        return _by_length(order, lengths, batch_tokens)
    return _best_fit(order, lengths, batch_tokens)


def plan_evenly(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of unpadded rows, nearly equal in tokens; otherwise as `plan` with padding `none`.

    For cores that each compute a micro-batch of their own: with best fit, one core would compute the last full one
    while the others wait. The plan, and so the scores, do not depend on the number of cores.
    """
    order = np.argsort(-lengths, kind="stable")
    tokens = int(lengths.sum())
    count = -(-tokens // batch_tokens)
    count = max(count, min(_even_count(count), tokens // _LEAST_TOKENS))
    while True:
        loads, batches = _least_loaded(order, lengths, min(count, len(order)))
        too_full = any(load > batch_tokens and len(batch) > 1 for load, batch in zip(loads, batches, strict=True))
        if not too_full:
            heaviest = sorted(range(len(batches)), key=lambda place: -loads[place])
            return [np.array(batches[place]) for place in heaviest]
        count = _even_count(count + 1 + count // 50)


def slots(lengths: np.ndarray, padding: Padding, max_length: int) -> int:
    """Returns how many slots a micro-batch of rows of `lengths` tokens takes."""
    if padding == "none":
        return int(lengths.sum())
    return len(lengths) * (max_length if padding == "max_length" else int(lengths.max(initial=0)))


def _by_length(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    batches, start = [], 0
    while start < len(order):
        rows = max(1, batch_tokens // int(lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def _best_fit(order: Sequence[int] | np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Best-fit decreasing: a row goes where it leaves the least room, or into a new micro-batch if it fits nowhere."""
    batches: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens still free, micro-batch), ascending
    for row, length in zip(order, lengths[order], strict=True):
        place = bisect_left(room, (int(length), 0))
        if place < len(room):
            free, batch = room.pop(place)
        else:
            free, batch = batch_tokens, len(batches)
            batches.append([])
        batches[batch].append(int(row))
        if free > length:
            insort(room, (free - int(length), batch))
    return [np.array(batch) for batch in batches]


def _least_loaded(order: np.ndarray, lengths: np.ndarray, count: int) -> tuple[list[int], list[list[int]]]:
    """Assigns each row, longest first, to the least loaded of `count` micro-batches (Graham 1969)."""
    batches: list[list[int]] = [[] for _ in range(count)]
    least = [(0, place) for place in range(count)]
    heapify(least)
    for row in order:
        load, place = least[0]
        batches[place].append(int(row))
        heapreplace(least, (load + int(lengths[row]), place))
    loads = [0] * count
    for load, place in least:
        loads[place] = load
    return loads, batches


def _even_count(count: int) -> int:
    if count > _MOST_EVEN:
        return -(-count // _MOST_EVEN) * _MOST_EVEN
    return max(_LEAST_EVEN, 1 << (count - 1).bit_length())
