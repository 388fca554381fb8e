"""Sums over groups of prompts: what intervals of a run of any size need, in a few megabytes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lmsys_ray.metrics import RESAMPLES, Estimate, resampled_means

GROUPS = 4096
"""Rows of one prompt are in one group, so that a resample of groups is one of whole prompts (the cluster bootstrap)."""

HASHES = 1 << 32


def prompt_hashes(prompts: pa.ChunkedArray) -> np.ndarray:
    """Returns a number below `HASHES` for each raw cell, int64 [rows]: the same for the same bytes."""
    return np.array([zlib.crc32(prompt.encode("utf-8", "surrogatepass")) for prompt in prompts.to_pylist()], np.int64)


class GroupSums:
    """Sums of per-row terms [slices, groups, terms], added shard by shard."""

    def __init__(self, slices: int, terms: int) -> None:
        self._sums = np.zeros((slices, GROUPS, terms))

    def add(self, slices: np.ndarray, hashes: np.ndarray, terms: np.ndarray) -> None:
        """Adds rows: the slice [rows] and `prompt_hashes` of each, and its terms [rows, terms]."""
        np.add.at(self._sums, (slices, hashes % GROUPS), terms)

    def totals(self) -> np.ndarray:
        """Returns the sums over groups [slices, terms]."""
        return np.asarray(self._sums.sum(axis=1))

    def of(self, number: int) -> np.ndarray:
        """Returns the sums of one slice by group [groups, terms]."""
        return np.asarray(self._sums[number])


def ratios(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    """Estimates `sums` [groups, terms] by row, where the groups have `counts` [groups] rows.

    All terms share their resamples, so that differences between them are paired.
    """
    known = counts > 0
    both = np.column_stack([sums, counts])[known]
    means = resampled_means(both, np.arange(len(both)), RESAMPLES, 0)
    return Estimate(both[:, :-1].sum(axis=0) / both[:, -1].sum(), means[:, :-1] / means[:, -1:])


def part(estimate: Estimate, terms: Sequence[int]) -> Estimate:
    """Returns an estimate of some of the terms."""
    return Estimate(estimate.values[list(terms)], estimate.resampled[:, list(terms)])
