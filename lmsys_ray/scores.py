"""A shard on its way through a member: which rows are scored, in which orders of A and B, and what is kept of it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES
from lmsys_ray.members.base import CONVERSATIONS

_EXCHANGED = [1, 0, 2]
"""Where the classes of a row scored as B/A lie in the order of `CLASSES`."""


def scorable(shard: pa.Table) -> pa.Table:
    """Returns the rows of a shard that members score, with the columns of `CONVERSATIONS`."""
    return shard.filter(pc.invert(shard["rejected"])).select(CONVERSATIONS.names)


def both_orders(conversations: pa.Table) -> pa.Table:
    """Returns the conversations as they are, followed by the same ones with A and B exchanged [2 * rows]."""
    exchanged = conversations.select(["row", "prompt", "response_b", "response_a"])
    return pa.concat_tables([conversations, exchanged.rename_columns(CONVERSATIONS.names)])


def score_table(encoded: pa.Table, probabilities: np.ndarray, swap: bool) -> pa.Table:
    """Returns a member's score shard: row, a, b, tie (float32), and tokens where the member counts them.

    Where `swap`, the second half of the rows are those of `both_orders`: a, b, tie are the means of the two orders, and
    the columns `a_plain` and `a_swapped` and so on hold each order by itself, its classes put back.
    """
    tokens = encoded["tokens"].to_numpy() if "tokens" in encoded.column_names else None
    row, orders = encoded["row"], {"": probabilities}
    if swap:
        half = len(probabilities) // 2
        plain, swapped = probabilities[:half], probabilities[half:][:, _EXCHANGED]
        orders = {"": (plain + swapped) / 2, "_plain": plain, "_swapped": swapped}
        row, tokens = row.slice(0, half), None if tokens is None else tokens[:half] + tokens[half:]
    columns: dict[str, object] = {"row": row}
    for suffix, values in orders.items():
        columns |= {name + suffix: values[:, place].astype(np.float32) for place, name in enumerate(CLASSES)}
    if tokens is not None:
        columns["tokens"] = tokens
    return pa.table(columns)
