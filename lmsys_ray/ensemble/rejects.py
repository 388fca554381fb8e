"""Rejects, the rows without a score of their own: their records, and how many a run may have."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from lmsys_ray.errors import RunError
from lmsys_ray.run_directory.layout import RunDirectory

_ALWAYS_ALLOWED = 10
"""So many rejects never stop a run, since one bad row of a few is a large share."""

_DETAILS = re.compile(r"^lines \d+ to \d+: | \(.*\)$| \([^)]*\)| at character \d+")
_SHOWN = 4


def unscorable(shard: pa.Table, failed: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """Returns the records in `rejects.jsonl` of rows (row in the run, member, reason) that members could not score."""
    ids, first = shard["id"], shard["row"][0].as_py() if shard.num_rows else 0
    return [
        {"file": None, "row": None, "id": ids[row - first].as_py(), "reason": reason, "member": member}
        for row, member, reason in failed
    ]


def too_many(rejects: int, rows: int, share: float) -> bool:
    """Returns whether `rejects` of `rows` stop a run that allows a `share` of rejects, and always ten.

    All rows are too many unless `share` is 1.
    """
    return rejects > max(_ALWAYS_ALLOWED, share * rows) or (0 < rows <= rejects and share < 1)


def kinds(reasons: Counter[str]) -> Counter[str]:
    """Returns how many rejects there are of each kind, a kind being a reason without its details."""
    counts: Counter[str] = Counter()
    for reason, count in reasons.items():
        counts[_DETAILS.sub("", reason)] += count
    return counts


def refusal(rejects: int, rows: int, share: float, reasons: Counter[str], place: str) -> RunError:
    """Returns the error for too many rejects, with the most frequent reasons; `place` is where they are listed."""
    counts = kinds(reasons)
    counted = ", ".join(f"{kind}: {count}" for kind, count in counts.most_common(_SHOWN))
    more = f", {len(counts) - _SHOWN} other reasons" if len(counts) > _SHOWN else ""
    return RunError(
        f"{rejects} of {rows} rows are rejects, more than max_error_rate = {share:g} lets pass ({counted}{more}); "
        f"mend what {place} lists, or continue with --set max_error_rate=SHARE"
    )


def check_rejects(rejects: int, rows: int, share: float, fail_on_any: bool, run: RunDirectory) -> None:
    """Raises `RunError` where a run may not have so many `rejects`: any with `fail_on_any`, else see `too_many`."""
    if rejects and fail_on_any:
        remedy = "mend them, or continue without them with --set on_bad_row=reject"
        raise RunError(f"{run.rejects} lists {rejects} rows that cannot be used; {remedy}")
    if too_many(rejects, rows, share):
        raise refusal(rejects, rows, share, run.reject_reasons(), str(run.rejects))
