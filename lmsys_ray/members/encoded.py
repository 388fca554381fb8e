"""Tables of token ids, from the encoders of language models to their scorers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.members.protocol import KEPT
from lmsys_ray.prompts.kept import Kept

TOKEN_IDS = pa.large_list(pa.int32())

ENCODED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("input_ids", TOKEN_IDS, nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""What a scorer of one sequence a row receives: token ids, with special tokens, without padding."""

ENCODED_PAIRS = ENCODED.append(pa.field("second", pa.int64(), nullable=False))
"""The same of a scorer of pairs of texts: also where in each row the tokens of type 1 begin, which are those of the
second text (0: there are none)."""


def as_lists(ids: Sequence[np.ndarray]) -> pa.LargeListArray:
    """Returns rows of token ids as an Arrow array of lists."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths(ids))])
    flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.int32()))


def lengths(ids: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the tokens of each row, int64 [rows]."""
    return np.array([len(row) for row in ids], np.int64)


def encoded_rows(row: pa.ChunkedArray, ids: Sequence[np.ndarray], second: np.ndarray | None = None) -> pa.Table:
    """Returns a table with the columns of `ENCODED`, or where `second` [rows] is given of `ENCODED_PAIRS`."""
    columns = [row.combine_chunks(), as_lists(ids), pa.array(lengths(ids))]
    if second is None:
        return pa.Table.from_arrays(columns, schema=ENCODED)
    return pa.Table.from_arrays([*columns, pa.array(second, pa.int64())], schema=ENCODED_PAIRS)


def with_kept(encoded: pa.Table, kept: Sequence[Kept]) -> pa.Table:
    """Returns an encoder's table with the columns of `KEPT`: what is kept of each row."""
    for field, cell in zip(KEPT, CELLS, strict=True):
        encoded = encoded.append_column(field, pa.array([row.get(cell, 1.0) for row in kept], field.type))
    return encoded


def types_of(ids: RaggedIds, second: np.ndarray) -> np.ndarray | None:
    """Returns for each token whether it is of the second text, which begins at `second` [sequences]; 0: there is none.

    None where no sequence has a second text.
    """
    if not second.any():
        return None
    lengths = ids.lengths
    place = np.arange(len(ids.flat)) - np.repeat(ids.starts[:-1], lengths)
    begins = np.repeat(np.where(second > 0, second, lengths), lengths)
    return (place >= begins).astype(np.int32)
