"""Rows without a score of their own: how they are named, and how many a run lets pass."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from lmsys_ray.errors import RunError

_ALWAYS_LET_PASS = 10
"""Rejects that never stop a run: of few rows, one bad one is a large share."""

_DETAILS = re.compile(r" \([^)]*\)| at character \d+")
_SHOWN = 4


def unscorable(shard: pa.Table, failed: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """Returns the records, as `rejects.jsonl` has them, of rows that ingest took: (row in the run, member, reason)."""
    ids, first = shard["id"], shard["row"][0].as_py() if shard.num_rows else 0
    return [
        {"file": None, "row": None, "id": ids[row - first].as_py(), "reason": reason, "member": member}
        for row, member, reason in failed
    ]


def too_many(rejects: int, rows: int, share: float) -> bool:
    """Returns whether `rejects` of `rows` stop a run that lets pass `share` of them, and the first ten in any case.

    All rows are too many, unless `share` is 1.
    """
    return rejects > max(_ALWAYS_LET_PASS, share * rows) or (0 < rows <= rejects and share < 1)


def kinds(reasons: Counter[str]) -> Counter[str]:
    """Returns how many rejects there are of each kind: reasons without the details in which they differ."""
    counts: Counter[str] = Counter()
    for reason, count in reasons.items():
        counts[_DETAILS.sub("", reason)] += count
    return counts


def refusal(rejects: int, rows: int, share: float, reasons: Counter[str], place: str) -> RunError:
    """Returns the sentence for too many rejects, with the most frequent of their reasons, which `place` lists."""
    counts = kinds(reasons)
    counted = ", ".join(f"{kind}: {count}" for kind, count in counts.most_common(_SHOWN))
    more = f", {len(counts) - _SHOWN} other reasons" if len(counts) > _SHOWN else ""
    return RunError(
        f"{rejects} of {rows} rows are rejects, more than max_error_rate = {share:g} lets pass ({counted}{more}); "
        f"mend what {place} lists, or go on by --set max_error_rate=SHARE"
    )
