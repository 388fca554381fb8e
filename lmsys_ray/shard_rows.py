"""How many rows a shard has where the user leaves it open: few enough that no replica waits long for another.

It follows from the input alone, so that a run goes on with the shards it has, whatever the cluster is then.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

_SHARDS = 128
"""That are aimed at: enough for a handful of replicas, each of which should have some 24."""

_LEAST, _MOST = 64, 1024
"""A shard costs the job some 35 ms of a core whatever its rows, as long as LightGBM takes for 30 of them."""

_ROW_BYTES = 2500
"""Of a conversation as CSV; 1,650 in public pairs of one turn, 3,200 in the LMSYS competition's."""

_COMPRESSED_ENDINGS = (".gz", ".parquet")
_COMPRESSED = 2.5
"""How much larger text is than the same in such a file."""


def shard_rows(setting: int | Literal["auto"], files: Sequence[Mapping[str, Any]], limit: int | None) -> int:
    """Returns the setting or, for `auto`, a power of two by the size of `files`, each with `path` and `bytes`."""
    if setting != "auto":
        return setting
    size = sum(
        file["bytes"] * (_COMPRESSED if file["path"].lower().endswith(_COMPRESSED_ENDINGS) else 1) for file in files
    )
    rows = int(min(size / _ROW_BYTES, limit or size))
    return min(_MOST, max(_LEAST, 1 << (rows // _SHARDS).bit_length() >> 1))
