"""How much of each cell of a row a model reads, where rows are cut to a maximum length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Kept = Mapping[str, float]
"""By cell: the share of its characters that is read, 0 to 1. A cell that is read whole may be left out."""

WHOLE: Kept = {}
"""Every cell is read whole."""

WHOLE_SHARE = 1 - 1e-6
"""A share in float32 from which a text counts as read whole."""


def shares_kept(fields: Sequence[str], sizes: Sequence[int], read: Sequence[int]) -> Kept:
    """Returns the share of each cell, given the characters of each field and how many of them are read.

    A field is named after its cell, and after a dot what tells it from others of that cell. A cell without text counts
    as read.
    """
    totals: dict[str, list[int]] = {}
    for field, size, some in zip(fields, sizes, read, strict=True):
        total = totals.setdefault(field.partition(".")[0], [0, 0])
        total[0] += size
        total[1] += some
    return {cell: some / size if size else 1.0 for cell, (size, some) in totals.items()}


def kept_of_both(with_a: Kept, with_b: Kept) -> Kept:
    """Returns the shares of a row whose prompt is read with either `response`: of the prompt, the mean of both."""
    if not with_a and not with_b:
        return WHOLE
    prompt = (with_a.get("prompt", 1.0) + with_b.get("prompt", 1.0)) / 2
    return {"prompt": prompt, "response_a": with_a.get("response", 1.0), "response_b": with_b.get("response", 1.0)}
