"""Arranges rows in one order of A and B, or in both."""

from collections.abc import Sequence

import pyarrow as pa

from lmsys_ray.members.protocol import CONVERSATIONS


def both_orders(conversations: pa.Table) -> pa.Table:
    """Returns the conversations, followed by the same ones with A and B exchanged [2 * rows]."""
    return pa.concat_tables([conversations, exchanged(conversations)])


def exchanged(conversations: pa.Table) -> pa.Table:
    """Returns the conversations with A and B exchanged [rows]."""
    swapped = conversations.select(["row", "id", "prompt", "response_b", "response_a"])
    return swapped.rename_columns(CONVERSATIONS.names)


def merged(parts: Sequence[pa.Table], orders: int) -> pa.Table:
    """Returns consecutive parts of a shard as one table, with all rows in the first order, then all in the second.

    Each part is arranged like that itself; `orders` is 2 for rows from `both_orders`, else 1.
    """
    sizes = [part.num_rows // orders for part in parts]
    cuts = [(part, order * size, size) for order in range(orders) for part, size in zip(parts, sizes, strict=True)]
    return pa.concat_tables([part.slice(first, size) for part, first, size in cuts])


def rows_between(encoded: pa.Table, start: int, stop: int, orders: int) -> pa.Table:
    """Returns the rows `start` to `stop` - 1 of a table from `merged`, in each order."""
    rows = encoded.num_rows // orders
    return pa.concat_tables([encoded.slice(order * rows + start, stop - start) for order in range(orders)])
