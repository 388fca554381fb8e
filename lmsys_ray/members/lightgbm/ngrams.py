"""Counts the n-grams of a vocabulary in long sequences of symbols, without Python code per position."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array, vstack

ABSENT = 0
"""The symbol of everything that no n-gram of the vocabulary contains; it also separates documents."""

_POSITIONS_AT_ONCE = 1 << 17
_COUNTERS_AT_ONCE = 1 << 19
_TABLE_ENTRIES = 1 << 22


class _Step:
    """Maps keys `node * symbols + symbol` to nodes of the next level.

    A table over all possible keys is several times faster than a hash table; it may take up to 16 MiB.
    """

    def __init__(self, keys: np.ndarray, possible: int) -> None:
        """Takes the keys of the nodes in order, int64 [nodes], each below `possible`."""
        self._keys = self._table = None
        if possible <= _TABLE_ENTRIES:
            self._table = np.full(possible, -1, np.int32)
            self._table[keys] = np.arange(len(keys))
        else:
            self._keys = pa.array(keys)

    def __call__(self, keys: np.ndarray) -> np.ndarray:
        """Returns the node of each key, -1 where there is none."""
        if self._table is not None:
            return self._table.take(keys)
        return pc.fill_null(pc.index_in(pa.array(keys), value_set=self._keys), -1).to_numpy()


class NgramTrie:
    """A trie over integer symbols whose levels are arrays: all positions of a text descend it together.

    Nodes are numbered within their level. The key of a child, `node * symbols + symbol`, is looked up exactly among
    those of the next level, so that n-grams are never confused. Positions that match no prefix of an n-gram drop out at
    each level, so that few are left for the longer n-grams.
    """

    def __init__(self, ngrams: Sequence[Sequence[int]], columns: np.ndarray) -> None:
        """Builds the trie of distinct `ngrams` of symbols from 1; `columns` [ngrams] says where they are counted."""
        order = np.argsort(columns)
        ngrams, self._ngram_columns = [ngrams[place] for place in order], columns[order]
        lengths = np.array([len(ngram) for ngram in ngrams], np.int64)
        self.depth = int(lengths.max(initial=0))
        symbols = np.zeros((len(ngrams), self.depth), np.int64)
        for row, ngram in zip(symbols, ngrams, strict=True):
            row[: len(ngram)] = ngram
        self._base = int(symbols.max(initial=0)) + 1
        self._steps: list[_Step] = []  # to each level from the one above
        self._ngrams: list[np.ndarray] = []  # for each level int64 [nodes]: the n-gram that ends there, or -1
        node, above = np.zeros(len(ngrams), np.int64), 1
        for level in range(self.depth):
            alive = lengths > level
            keys, node[alive] = np.unique(node[alive] * self._base + symbols[alive, level], return_inverse=True)
            ending = np.full(len(keys), -1, np.int64)
            ends = np.flatnonzero(lengths == level + 1)
            ending[node[ends]] = ends
            self._steps.append(_Step(keys, above * self._base))
            self._ngrams.append(ending)
            above = len(keys)

    def _hits(self, symbols: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns where n-grams begin in `symbols[start:stop]` (they may end after it) and their numbers."""
        symbols = np.append(symbols[start : stop + self.depth], [ABSENT] * self.depth)
        position, key = np.arange(stop - start), symbols[: stop - start]
        positions, ngrams = [position[:0]], [position[:0]]
        for level, (step, ending) in enumerate(zip(self._steps, self._ngrams, strict=True), 1):
            child = step(key)  # a key with ABSENT, which is 0, has no child
            found = np.flatnonzero(child >= 0)
            position, node = position.take(found), child.take(found)
            ngram = ending.take(node)
            ends = np.flatnonzero(ngram >= 0)
            positions.append(position.take(ends))
            ngrams.append(ngram.take(ends))
            key = symbols.take(position + level) + node * np.int64(self._base)
        return np.concatenate(positions) + start, np.concatenate(ngrams)

    def count(self, symbols: np.ndarray, documents: np.ndarray, width: int) -> csr_array:
        """Counts the n-grams of each document, int64 [documents, width].

        `symbols` int [positions] are those of all documents end to end, separated by `ABSENT`; `documents` int
        [documents] is where each begins.
        """
        group = max(1, _COUNTERS_AT_ONCE // max(1, len(self._ngram_columns)))
        blocks = [
            self._count_group(symbols, np.append(documents, len(symbols))[first : first + group + 1], width)
            for first in range(0, len(documents), group)
        ]
        return vstack(blocks, format="csr") if blocks else csr_array((0, width), dtype=np.int64)

    def _count_group(self, symbols: np.ndarray, bounds: np.ndarray, width: int) -> csr_array:
        """Counts the n-grams between the first and the last of `bounds`, with a counter for each document and n-gram.

        Counters are faster than sorting the hits, of which each character has several.
        """
        documents, ngrams = len(bounds) - 1, len(self._ngram_columns)
        counters = np.zeros(documents * ngrams, np.int64)
        first_counter = np.repeat(np.arange(documents) * ngrams, np.diff(bounds))
        for start in range(bounds[0], bounds[-1], _POSITIONS_AT_ONCE):
            position, ngram = self._hits(symbols, start, min(start + _POSITIONS_AT_ONCE, bounds[-1]))
            counter = first_counter.take(position - bounds[0])
            counters += np.bincount(counter + ngram, minlength=len(counters))
        counted = np.flatnonzero(counters)
        document, ngram = np.divmod(counted, max(1, ngrams))
        ends = np.searchsorted(document, np.arange(documents + 1))
        return csr_array((counters[counted], self._ngram_columns[ngram], ends), shape=(documents, width))
