"""Counts over the rows of a run, added shard by shard: what the figures of a report show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.ensemble.exports.doubtful import disagreement
from lmsys_ray.ensemble.position_bias import PositionBias
from lmsys_ray.members import protocol
from lmsys_ray.prompts.kept import WHOLE_SHARE

SIDE = 20
"""Triangles along a side of the triangle of probabilities."""

BINS = 20
"""Bins of a probability, and of a difference of two."""

MOST_TOKENS = 1 << 17
"""Rows with more tokens are counted as having so many."""

KEPT = dict(zip(protocol.KEPT.names, ("prompt", "response A", "response B"), strict=True))
"""Columns of scores: the share of each text that a model read."""


def triangle_cells(probabilities: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Returns for each row of probabilities [rows, 3] the small triangle that it lies in, int64 [rows, 3].

    These are the whole parts of `side` times P(a), P(b) and P(tie); they sum to `side` - 1 in triangles that point
    upwards, to `side` - 2 in those that point downwards.
    """
    cells = np.floor(probabilities * side + 1e-9).astype(np.int64)
    corners = cells.sum(axis=1) >= side  # a point of the grid belongs to the triangle below it
    rows = np.flatnonzero(corners)
    cells[rows, cells[rows].argmax(axis=1)] -= 1
    return cells


@dataclass
class Spread:
    """How the probabilities of a member or blend are distributed."""

    rows: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(len(CLASSES)))
    likeliest: np.ndarray = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    """Rows by their likeliest class [3]."""
    cells: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE, 2), np.int64))
    """Rows by whole parts of P(a) and P(b), and whether the triangle points downwards."""

    def add(self, probabilities: np.ndarray) -> None:
        """Adds rows [rows, 3]."""
        a, b, tie = triangle_cells(probabilities).T
        places = (a * SIDE + b) * 2 + (a + b + tie < SIDE - 1)
        self.cells += np.bincount(places, minlength=self.cells.size).reshape(self.cells.shape)
        self.rows += len(probabilities)
        self.sums += probabilities.sum(axis=0)
        self.likeliest += np.bincount(probabilities.argmax(axis=1), minlength=len(CLASSES))


@dataclass
class Tokens:
    """How many tokens rows have."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(MOST_TOKENS + 1, np.int64))

    def add(self, tokens: np.ndarray) -> None:
        """Adds rows [rows]."""
        self.counts += np.bincount(np.clip(tokens, 0, MOST_TOKENS), minlength=MOST_TOKENS + 1)

    def quantile(self, share: float) -> int:
        """Returns the fewest tokens that at least this share of the rows do not exceed."""
        return int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))

    def largest(self) -> int:
        """Returns the tokens of the longest row."""
        return int(np.flatnonzero(self.counts)[-1])


@dataclass
class Kept:
    """Which share of the texts a model read."""

    rows: int = 0
    cut: int = 0
    """Rows of which any text was cut."""
    cut_texts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEPT, 0))
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEPT, 0.0))
    least: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Rows that were cut, by the share kept of the text that lost most."""

    def add(self, scores: pa.Table) -> None:
        """Adds scores with the columns of `KEPT`."""
        shares = np.column_stack([scores[name].to_numpy().astype(np.float64) for name in KEPT])
        shares = np.nan_to_num(shares, nan=1.0)
        cut = shares < WHOLE_SHARE
        for place, name in enumerate(KEPT):
            self.cut_texts[name] += int(cut[:, place].sum())
            self.sums[name] += float(shares[:, place].sum())
        any_cut = cut.any(axis=1)
        self.rows += len(shares)
        self.cut += int(any_cut.sum())
        least = np.clip((shares[any_cut].min(axis=1) * BINS).astype(int), 0, BINS - 1) if any_cut.any() else []
        self.least += np.bincount(least, minlength=BINS).astype(np.int64)


@dataclass
class Agreement:
    """How far two members say the same."""

    rows: int = 0
    same: int = 0
    """Rows whose likeliest class is the same."""
    divergence: float = 0.0
    """Their Jensen-Shannon divergence in nats, summed over rows."""
    moments: np.ndarray = field(default_factory=lambda: np.zeros(5))
    """Sums of x, y, x², y² and xy, of x and y the difference P(a) - P(b) of each."""

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Adds rows [rows, 3] of both."""
        self.rows += len(first)
        self.same += int((first.argmax(axis=1) == second.argmax(axis=1)).sum())
        self.divergence += float(disagreement([first, second]).sum())
        x, y = first[:, 0] - first[:, 1], second[:, 0] - second[:, 1]
        self.moments += [x.sum(), y.sum(), x @ x, y @ y, x @ y]

    def correlation(self) -> float | None:
        """Returns the correlation of P(a) - P(b); None where one of them never varies."""
        x, y, xx, yy, xy = self.moments / max(self.rows, 1)
        variance = (xx - x * x) * (yy - y * y)
        return float((xy - x * y) / np.sqrt(variance)) if variance > 1e-18 else None


@dataclass
class Orders:
    """How much a member's probabilities depend on which response stands first."""

    bias: PositionBias = field(default_factory=PositionBias)
    grid: np.ndarray = field(default_factory=lambda: np.zeros((BINS, BINS), np.int64))
    """Rows by P(a) - P(b) as A/B and as B/A, the responses exchanged back."""

    def add(self, scores: pa.Table) -> None:
        """Adds scores of both orders."""
        self.bias.add(scores)
        plain, swapped = (
            scores[f"a_{order}"].to_numpy().astype(np.float64) - scores[f"b_{order}"].to_numpy()
            for order in ("plain", "swapped")
        )
        places = [np.clip(((values + 1) / 2 * BINS).astype(int), 0, BINS - 1) for values in (plain, swapped)]
        self.grid += np.bincount(places[0] * BINS + places[1], minlength=BINS * BINS).reshape(BINS, BINS)


@dataclass
class Reliability:
    """How often what was predicted with some probability happened, in bins of equal width."""

    sums: np.ndarray = field(default_factory=lambda: np.zeros((len(CLASSES), BINS, 3)))
    """By class and bin: rows, predicted probability, rows of that class."""

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Adds rows [rows, 3] and their classes [rows]."""
        bins = np.clip((probabilities * BINS).astype(int), 0, BINS - 1)
        for place in range(len(CLASSES)):
            for term, values in enumerate((None, probabilities[:, place], labels == place)):
                self.sums[place, :, term] += np.bincount(bins[:, place], values, minlength=BINS)
