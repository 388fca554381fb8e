"""Which token of a row the head reads: pure functions on token ids."""

from collections.abc import Sequence

import numpy as np


def pooled_ends(flat: np.ndarray, starts: np.ndarray, pad_id: int | None) -> np.ndarray:
    """Returns how many tokens each row has up to the one that the head reads, int64 [rows].

    Row i is `flat[starts[i]:starts[i + 1]]`. As in transformers, that is the last token that is not `pad_id`, or the
    first where all are; without a `pad_id` it is the last.
    """
    lengths = np.diff(starts)
    if pad_id is None:
        return lengths
    others = np.flatnonzero(flat != pad_id)
    before = np.searchsorted(others, starts[1:]) - 1  # the last place before each row's end without a pad token
    last = others[np.maximum(before, 0)] if len(others) else np.full(len(lengths), -1)
    return np.where((before >= 0) & (last >= starts[:-1]), last - starts[:-1] + 1, np.minimum(lengths, 1))


def cut_rows(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and starts of the same rows, each cut to its first `ends` [rows] tokens."""
    lengths = np.diff(starts)
    if np.array_equal(ends, lengths):
        return flat, starts
    kept = np.arange(len(flat)) - np.repeat(starts[:-1], lengths) < np.repeat(ends, lengths)
    return flat[kept], np.concatenate([np.zeros(1, np.int64), np.cumsum(ends)])


def pooled_positions(rows: Sequence[np.ndarray], pad_id: int | None) -> np.ndarray:
    """Returns the position in each row of the token that the head reads, int64 [rows]."""
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return pooled_ends(np.concatenate(rows), starts, pad_id) - 1
