"""The default number of rows in a shard: few enough that no replica waits long for another.

It depends on the input alone, so that a run has the same shards on any cluster. Measurements: docs/lab/pools.md
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

_SHARDS = 128
"""The aim: enough for a handful of replicas, each of which should have about 24."""

_LEAST, _MOST = 64, 1024
"""Bounds of the rows: a shard has a fixed cost of some 35 ms of a core, as much as 30 rows of LightGBM."""

_ROW_BYTES = 2500
"""A typical conversation as CSV."""

_COMPRESSED_ENDINGS = (".gz", ".zst", ".parquet")
_COMPRESSED = 2.5
"""How much larger text is than such a file of it."""


def text_bytes(path: str, size: int) -> float:
    """Returns the bytes of text in a file of `size` bytes, an estimate where it is compressed."""
    return size * (_COMPRESSED if path.lower().endswith(_COMPRESSED_ENDINGS) else 1)


def shard_rows(setting: int | Literal["auto"], files: Sequence[Mapping[str, Any]], limit: int | None) -> int:
    """Returns the setting; for `auto` a power of two from the size of `files`, each with `path` and `bytes`."""
    if setting != "auto":
        return setting
    size = sum(text_bytes(file["path"], file["bytes"]) for file in files)
    rows = int(min(size / _ROW_BYTES, limit or size))
    return min(_MOST, max(_LEAST, 1 << (rows // _SHARDS).bit_length() >> 1))
