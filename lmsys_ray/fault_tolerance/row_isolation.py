"""Finds the rows of a shard that cannot be computed, so that the other rows are computed without them."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import isqrt
from typing import TypeVar

from lmsys_ray.errors import UnscorableError

Part = TypeVar("Part")


def compute_rows(
    rows: int, compute: Callable[[int, int], Part], attempt: Callable[[int, int], AbstractContextManager[None]]
) -> tuple[list[Part], dict[int, str]]:
    """Computes rows 0 to `rows` - 1, all at once if possible; returns the parts in order, and why rows failed, by row.

    `compute(start, stop)` computes rows `start` to `stop` - 1. If it, or the `attempt` around it, raises
    `UnscorableError` or `MemoryError`, the rows are divided: a shard of n rows into parts of √n rows, and a part into
    single rows. A single row that fails is left out.
    """
    parts: list[Part] = []
    failed: dict[int, str] = {}
    waiting = deque([(0, rows)])
    while waiting:
        start, stop = waiting.popleft()
        try:
            with attempt(start, stop):
                parts.append(compute(start, stop))
        except (UnscorableError, MemoryError) as error:
            if stop - start <= 1:
                failed[start] = str(error) or "it needs more memory than there is"
                continue
            size = isqrt(rows) if stop - start == rows else 1
            waiting.extendleft((first, min(first + size, stop)) for first in reversed(range(start, stop, size)))
    return parts, failed


def tolerated_deaths(start: int, stop: int, rows: int, limit: int) -> int:
    """Returns after how many deaths rows `start` to `stop` - 1 of a shard of `rows` count as the cause.

    That is `limit` for a whole shard and a single row, since nodes are lost for other reasons, too; parts in between
    are divided after one death.
    """
    return limit if stop - start in (rows, 1) else 1
