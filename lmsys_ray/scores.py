"""A shard on its way through a member: which rows are scored, in which orders of A and B, and what is kept of it."""

from collections.abc import Mapping, Sequence

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


def merged(parts: Sequence[pa.Table], orders: int) -> pa.Table:
    """Returns consecutive parts of a shard as one, each with its rows once per order: all of one order, then the next.

    `orders` is 2 where rows come as `both_orders`, else 1.
    """
    sizes = [part.num_rows // orders for part in parts]
    cuts = [(part, order * size, size) for order in range(orders) for part, size in zip(parts, sizes, strict=True)]
    return pa.concat_tables([part.slice(first, size) for part, first, size in cuts])


def rows_between(encoded: pa.Table, start: int, stop: int, orders: int) -> pa.Table:
    """Returns the rows from `start` to before `stop`, in each of the orders that `merged` describes."""
    rows = encoded.num_rows // orders
    return pa.concat_tables([encoded.slice(order * rows + start, stop - start) for order in range(orders)])


def with_failed(scores: pa.Table, failed: Mapping[int, str]) -> pa.Table:
    """Adds the rows that could not be scored, by their number in the run: no probabilities, and why in `reason`."""
    if not failed:
        return scores
    reasons = pa.table({"row": pa.array(failed.keys(), pa.int64()), "reason": pa.array(failed.values(), pa.string())})
    return pa.concat_tables([scores, reasons], promote_options="default").sort_by("row")


def failed_set_aside(
    shard: pa.Table, members: Mapping[str, pa.Table]
) -> tuple[pa.Table, dict[str, pa.Table], list[tuple[int, str, str]]]:
    """Marks as rejected the rows of a shard that any member could not score, and takes them out of all scores.

    Returns the shard, the members' scores, and (row, member, reason) of what was taken out.
    """
    named = {name: scores for name, scores in members.items() if "reason" in scores.column_names}
    if not named:
        return shard, dict(members), []
    failed = []
    for name, scores in named.items():
        bad = scores.filter(scores["reason"].is_valid()).select(["row", "reason"])
        failed += [(row["row"], name, row["reason"]) for row in bad.to_pylist()]
    rows = pa.array(sorted({row for row, _, _ in failed}), pa.int64())
    rejected = pc.or_(shard["rejected"], pc.is_in(shard["row"], rows))
    shard = shard.set_column(shard.schema.get_field_index("rejected"), "rejected", rejected)
    kept = {name: scores.filter(pc.invert(pc.is_in(scores["row"], rows))) for name, scores in members.items()}
    kept = {name: scores.drop_columns("reason") if name in named else scores for name, scores in kept.items()}
    return shard, kept, failed


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
