"""A set of the ids read so far, at 16 bytes an id, by which repeated ids are found in inputs of any size."""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa

_KEY_BYTES = 16
_ODD = np.uint64(0x9E3779B97F4A7C15)


class _Keys(NamedTuple):
    """Keys of 128 bits, in two halves, uint64 [ids] each."""

    high: np.ndarray
    low: np.ndarray

    def at(self, places: np.ndarray) -> "_Keys":
        return _Keys(self.high[places], self.low[places])


class SeenIds:
    """A set of ids that only grows.

    Ids are stored as keys of 128 bits in sorted runs of growing size, merged as in a log-structured merge tree. An id
    of at most 15 bytes is its own key. Among 10^9 longer ones, two share a key with a probability below 10^-20.
    """

    def __init__(self) -> None:
        self._runs: list[_Keys] = []

    def first_seen(self, ids: pa.Array) -> np.ndarray:
        """Adds `ids` (text without nulls); returns for each whether it was new, bool [ids]."""
        keys = _keys(ids)
        order = np.lexsort((keys.low, keys.high))
        ordered = keys.at(order)
        new = np.ones(len(ids), dtype=bool)
        new[1:] = (ordered.high[1:] != ordered.high[:-1]) | (ordered.low[1:] != ordered.low[:-1])
        for run in self._runs:
            new &= ~_contains(run, ordered)
        self._add(ordered.at(np.flatnonzero(new)))
        found = np.empty_like(new)
        found[order] = new
        return found

    def _add(self, run: _Keys) -> None:
        if not len(run.high):
            return
        while self._runs and len(self._runs[-1].high) <= 2 * len(run.high):
            other = self._runs.pop()
            both = _Keys(np.concatenate([other.high, run.high]), np.concatenate([other.low, run.low]))
            run = both.at(np.argsort(both.high, kind="stable"))  # timsort, which merges the two
        self._runs.append(run)


def _contains(run: _Keys, keys: _Keys) -> np.ndarray:
    """Returns which of `keys` are in a sorted run, bool [keys]."""
    place = np.searchsorted(run.high, keys.high)
    found = np.zeros(len(place), dtype=bool)
    while True:
        at = np.minimum(place, len(run.high) - 1)
        candidate = (place < len(run.high)) & (run.high[at] == keys.high)
        if not candidate.any():
            return found
        found |= candidate & (run.low[at] == keys.low)
        place = place + 1  # another key may have the same upper half


def _keys(ids: pa.Array) -> _Keys:
    data = ids.cast(pa.large_binary())
    _, offset_buffer, value_buffer = data.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[data.offset : data.offset + len(data) + 1]
    values = np.frombuffer(value_buffer, np.uint8) if value_buffer else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    columns = np.arange(_KEY_BYTES)
    keys = np.zeros((len(data), _KEY_BYTES), np.uint8)
    within = columns < lengths[:, None]
    keys[within] = values[(offsets[:-1, None] + columns)[within]]
    keys[:, -1] = lengths
    for place in np.flatnonzero(lengths >= _KEY_BYTES):
        digest = hashlib.blake2b(data[place].as_py(), digest_size=_KEY_BYTES).digest()
        keys[place] = np.frombuffer(digest, np.uint8)
    halves = keys.view("<u8")
    high, low = halves[:, 0], halves[:, 1]
    # Mixed by invertible steps, since the first eight characters of consecutive numbers are alike.
    high = (high ^ (low * _ODD)) * _ODD
    return _Keys(high ^ (high >> np.uint64(32)), np.ascontiguousarray(low))
