"""What a member reads of the rows of a sample: how many tokens, what is cut away, and one row as the model sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.fault_tolerance.row_isolation import compute_rows
from lmsys_ray.members.encoded import TOKEN_IDS
from lmsys_ray.members.protocol import KEPT, Encoder
from lmsys_ray.prompts.kept import WHOLE_SHARE

_BARS = 10
_QUANTILES = {"5%": 0.05, "50%": 0.5, "95%": 0.95, "max": 1.0}
_OFTEN = 0.25
"""The share of truncated rows from which one of them is shown."""


@dataclass(frozen=True)
class Kept:
    """How much of a cell a member reads, over the rows of a sample."""

    mean: float
    """The share of the text of a row, in the mean."""
    gone: float
    """The share of rows of which nothing is read."""


@dataclass(frozen=True)
class Reads:
    """What a member reads of a sample."""

    rows: int
    failed: dict[str, int]
    """Rows that its encoder cannot read, by reason."""
    tokens: np.ndarray
    """Of each row, all sequences together, int64 [rows]."""
    sequences: int
    """How many a row has."""
    lengths: np.ndarray
    """Tokens of each sequence, int64 [rows * sequences]."""
    truncated: float
    """The share of rows of which something is cut away."""
    exact: bool
    """Whether the encoder tells what it cut away; else rows that fill `max_length` count as truncated."""
    kept: dict[str, Kept]
    """By cell; empty where the encoder does not tell it."""
    ids: list[np.ndarray]
    """The token ids of one row, a sequence each."""
    shown: str
    """The id of that row."""

    @property
    def quantiles(self) -> dict[str, int]:
        """Tokens of a row."""
        return quantiles(self.tokens)


def read_sample(encoder: Encoder, sample: pa.Table, max_length: int) -> Reads | None:
    """Returns what an encoder makes of a sample; None where it makes no token ids, or reads no row."""
    parts, failed = compute_rows(
        sample.num_rows,
        lambda start, stop: encoder.encode(sample.slice(start, stop - start)),
        lambda start, stop: nullcontext(),
    )
    encoded = pa.concat_tables(parts) if parts else encoder.encode(sample.slice(0, 0))
    names = [field.name for field in encoded.schema if field.type == TOKEN_IDS]
    if not names or not encoded.num_rows:
        return None
    sequences = [encoded[name].combine_chunks() for name in names]
    lengths = np.stack([np.diff(ids.offsets.to_numpy()) for ids in sequences])
    kept = _kept(encoded)
    least = np.min(list(kept.values()), axis=0) if kept else None
    cut = lengths.max(axis=0) >= max_length if least is None else least < WHOLE_SHARE
    place = shown_row(lengths.sum(axis=0), cut)
    numbers = encoded["row"].to_pylist()
    ids_of = dict(zip(sample["row"].to_pylist(), sample["id"].to_pylist(), strict=True))
    return Reads(
        rows=encoded.num_rows,
        failed=dict(Counter(failed.values()).most_common()),
        tokens=lengths.sum(axis=0),
        sequences=len(names),
        lengths=lengths.ravel(),
        truncated=float(cut.mean()),
        exact=least is not None,
        kept={cell: kept_share(shares) for cell, shares in kept.items()},
        ids=[ids[place].values.to_numpy() for ids in sequences],
        shown=ids_of[numbers[place]],
    )


def _kept(encoded: pa.Table) -> dict[str, np.ndarray]:
    """Returns by cell the share of each row's text that is read, 0 to 1; empty where the encoder does not tell it."""
    names = dict(zip(CELLS, KEPT.names, strict=True))
    there = {cell: column for cell, column in names.items() if column in encoded.column_names}
    return {cell: encoded[column].to_numpy().astype(np.float64) for cell, column in there.items()}


def kept_share(shares: np.ndarray) -> Kept:
    """Returns how much of a cell is read, from the shares of each row, 0 to 1."""
    return Kept(float(shares.mean()), float((shares <= 0).mean()))


def shown_row(tokens: np.ndarray, cut: np.ndarray) -> int:
    """Returns the place of the row that is shown: of median length, and truncated where many rows are."""
    places = np.flatnonzero(cut) if cut.mean() >= _OFTEN else np.arange(len(tokens))
    return int(places[np.argsort(tokens[places], kind="stable")[(len(places) - 1) // 2]])


def quantiles(tokens: np.ndarray) -> dict[str, int]:
    """Returns 5 %, median, 95 % and the largest of numbers of tokens, each one that occurs."""
    return {name: int(np.quantile(tokens, share, method="inverted_cdf")) for name, share in _QUANTILES.items()}


def histogram(tokens: np.ndarray, bars: int = _BARS) -> list[tuple[int, int, int]]:
    """Returns bars of equal width as (first, last, rows): numbers of tokens, and how many rows have so many."""
    least, most = int(tokens.min()), int(tokens.max())
    width = max(1, -(-(most - least + 1) // bars))
    counts = np.bincount((tokens - least) // width)
    firsts = [least + place * width for place in range(len(counts))]
    return [(first, min(first + width - 1, most), int(rows)) for first, rows in zip(firsts, counts, strict=True)]


def doubled_start(ids: Sequence[np.ndarray], special: set[int]) -> int | None:
    """Returns the special token with which a sequence begins twice; None where none does."""
    for sequence in ids:
        if len(sequence) > 1 and sequence[0] == sequence[1] and int(sequence[0]) in special:
            return int(sequence[0])
    return None


def shortened(tokenizer: Any, ids: np.ndarray, each: int) -> tuple[str, int, str]:
    """Returns the text of the first `each` tokens, how many follow that are left out, and the text of the last.

    Special tokens are shown. `tokenizer` is one of the library tokenizers.
    """

    def decoded(part: np.ndarray) -> str:
        return str(tokenizer.decode(part.tolist(), skip_special_tokens=False))

    if len(ids) <= 2 * each:
        return decoded(ids), 0, ""
    return decoded(ids[:each]), len(ids) - 2 * each, decoded(ids[len(ids) - each :])
