"""Finds the rows of a shard at which computing fails, so that the other rows go on without them."""

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
    """Computes rows 0 to `rows`, at once if it can be; returns the parts in order, and why each failing row failed.

    `compute` takes rows from a first one to before a last one. Where it, or the `attempt` around it, raises
    `UnscorableError` or `MemoryError`, the rows are divided: a shard into the square root of its rows, each of these
    into single rows. A row that fails alone is left out.
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
    """Returns how many processes may die at some rows of a shard of `rows` before they are held to be the cause.

    A whole shard and a single row are given `limit` chances, since nodes are lost for reasons of their own; what lies
    between them is divided at once.
    """
    return limit if stop - start in (rows, 1) else 1
