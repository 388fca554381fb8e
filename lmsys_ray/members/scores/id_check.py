"""Whether a source of scores is one for the rows of the input, by the first ids of both."""

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.errors import UsageError

_MOST = 5_000_000
"""Ids that are looked at; a larger source may hold those of the input further on."""

_FLOAT = re.compile(r"-?\d+\.0")


def check_ids(path: str, there: Iterable[pa.Array], ids: pa.Array) -> None:
    """Raises `UsageError` where fewer than half of `ids`, the first of the input, are among those `there`.

    Reads no further than it must: at once where the rows are in the same order.
    """
    wanted = pc.unique(ids.cast(pa.large_string()))
    found, example, seen = np.zeros(len(wanted), bool), None, 0
    for batch in there:
        example = batch[0] if example is None and len(batch) else example
        seen += len(batch)
        found[pc.unique(pc.index_in(batch, value_set=wanted)).drop_null().to_numpy()] = True
        if 2 * np.count_nonzero(found) >= len(wanted) or seen > _MOST:
            return
    if 2 * np.count_nonzero(found) >= len(wanted):
        return
    missing = wanted[int(np.argmin(found))]
    count = int(np.count_nonzero(found)) or "none"
    as_float = next((str(one) for one in (example, missing) if _FLOAT.fullmatch(str(one))), None)
    remedy = "give the scores of these rows"
    if as_float:
        remedy = (
            f"{as_float} is a whole number written as a float, as pandas does where a column has gaps: "
            "write ids as text or Int64"
        )
    raise UsageError(
        f"{path} has {count} of the first {len(wanted):,} ids of the input: not {missing}, and its own begin with "
        f"{example}; {remedy}"
    )
