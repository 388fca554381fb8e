"""Counts and sizes in words."""

from __future__ import annotations

_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size(count: float) -> str:
    """Returns bytes in the unit in which they are easy to read."""
    for unit, name in _BYTES:
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:,.0f} bytes"


def many(count: float) -> str:
    """Returns a large number as `8.0 B` (10^9), `135 M` or `12 K`."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:,.0f}"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as `1 shard` or `2 shards`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
