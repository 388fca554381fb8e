"""Finds texts among very many others: sorted hashes of 64 bits, then the texts themselves are compared.

Measurements: docs/lab/scores.md
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WORD = 8
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_FULL = np.uint64(2**64 - 1)


def texts(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns ids as `IdIndex` takes them: large_string, in one piece."""
    ids = ids.cast(pa.large_string())
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def hashes(ids: pa.Array) -> np.ndarray:
    """Returns a hash of each id (large_string without nulls), uint64 [ids].

    All ids are hashed at once, eight bytes of each at a time. Different ones of at most eight bytes and one length have
    different hashes.
    """
    _, offset_buffer, data_buffer = ids.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.frombuffer(data_buffer, np.uint8)[first:last] if last > first else np.empty(0, np.uint8)
    padded = np.concatenate([data, np.zeros(_WORD, np.uint8)])
    words = np.ndarray(len(padded) - _WORD + 1, "<u8", padded, strides=(1,))  # one begins at each byte
    at, lengths = offsets[:-1] - first, np.diff(offsets)
    found = _mixed(lengths.astype(np.uint64))
    rows: np.ndarray | slice = slice(None)
    for done in range(0, int(lengths.max(initial=0)), _WORD):
        if done and lengths.min(initial=0) <= done:
            rows = np.flatnonzero(lengths > done)
        left = np.minimum(lengths[rows] - done, _WORD).astype(np.uint64)
        # Of the last word of an id only its own bytes; an empty one has none.
        mask = np.where(left > 0, _FULL >> (np.uint64(64) - np.maximum(left, 1) * np.uint64(8)), np.uint64(0))
        found[rows] = _mixed(found[rows] ^ (words[at[rows] + done] & mask))
    return found


def _mixed(values: np.ndarray) -> np.ndarray:
    """Returns values mixed by invertible steps, which keep different ones different."""
    values = (values ^ (values >> _SHIFT)) * _ODD
    return values ^ (values >> _SHIFT)


class IdIndex:
    """The places of ids in a list of them, at 12 bytes an id beside their text (16 from 2^32 ids on)."""

    def __init__(self, ids: pa.Array, hashed: np.ndarray | None = None) -> None:
        """`ids` are as `texts` returns them, without nulls; an empty one is never found. `hashed` are their hashes."""
        self._ids = ids
        hashed = hashes(ids) if hashed is None else hashed
        order = np.argsort(hashed)
        if pc.any(pc.equal(ids, ""), min_count=0).as_py():
            order = order[pc.not_equal(ids, "").to_numpy(zero_copy_only=False)[order]]
        self._hashes = hashed[order]
        self._places = order.astype(np.uint32 if len(ids) <= np.iinfo(np.uint32).max else np.int64)

    def places(self, wanted: pa.Array) -> np.ndarray:
        """Returns the place of each of the `wanted` ids (large_string), -1 where there is none, int64 [wanted]."""
        found = np.full(len(wanted), -1, np.int64)
        keys = hashes(wanted)
        at = np.searchsorted(self._hashes, keys)
        left = np.arange(len(wanted))
        while True:
            left = left[at[left] < len(self._hashes)]
            left = left[self._hashes[at[left]] == keys[left]]
            if not len(left):
                return found
            places = self._places[at[left]]
            same = self._equal(places, wanted.take(pa.array(left)))
            found[left[same]] = places[same]
            left = left[~same]  # Another id may have the same hash.
            at[left] += 1

    def repeated(self) -> tuple[int, int] | None:
        """Returns the places of two equal ids, the earlier one first; None if no id repeats another."""
        alike = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        one, other = self._places[alike].astype(np.int64), self._places[alike + 1].astype(np.int64)
        same = self._equal(one, self._ids.take(pa.array(other)))
        if not same.any():
            return self._repeated_apart(alike)
        later = np.maximum(one, other)[same]
        first = int(np.argmin(later))
        return int(np.minimum(one, other)[same][first]), int(later[first])

    def _repeated_apart(self, alike: np.ndarray) -> tuple[int, int] | None:
        """Returns two equal ids that are not neighbours, since another one of the same hash stands between them."""
        seen: dict[str, int] = {}
        for group in np.split(alike, np.flatnonzero(np.diff(alike) > 1) + 1):
            places = self._places[np.append(group, group[-1:] + 1)].tolist()
            for place in places if len(places) > 2 else ():
                text = self._ids[place].as_py()
                if text in seen:
                    return min(seen[text], place), max(seen[text], place)
                seen[text] = place
        return None

    def _equal(self, places: np.ndarray, texts: pa.Array) -> np.ndarray:
        """Returns which ids at some places are equal to `texts`, bool [places]."""
        return pc.equal(self._ids.take(pa.array(places)), texts).to_numpy(zero_copy_only=False)
