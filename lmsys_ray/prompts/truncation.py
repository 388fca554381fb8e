"""Cuts a row of tokens to its maximum length: pure functions on token ids.

`right` drops the end, as the reference notebook does; a row with long answers may lose response B altogether.
`balanced` divides the tokens among the fields and cuts each in its middle, as the best solutions of the LMSYS
competition did: the beginning and the end of an answer say more than its middle.
"""

from collections.abc import Sequence

import numpy as np

SHARES = {"prompt": 1, "response": 2, "response_a": 2, "response_b": 2}
"""How the tokens are shared where all fields are too long: 20 % for the prompt, 40 % for each response.

Beside a single `response` the prompt has a third.
"""


def right(ids: np.ndarray, length: int) -> np.ndarray:
    """Returns the first `length` of `ids`."""
    return ids[:length]


def balanced(
    ids: np.ndarray,
    fields: Sequence[tuple[int, int]],
    length: int,
    ellipsis: np.ndarray,
    shares: Sequence[float],
) -> np.ndarray:
    """Cuts `ids` [tokens] to at most `length`, in the middle of the fields that are too long.

    `fields` says where the tokens of each field begin and end, in ascending order, and `shares` which part of the
    tokens it may have; tokens between the fields belong to the template and are kept. A field that is cut keeps its
    head and its tail with `ellipsis` between them, or only its head where its share is too small for that.
    """
    return cut_fields(ids, fields, field_budgets(len(ids), fields, length, shares), ellipsis)[:length]


def field_budgets(tokens: int, fields: Sequence[tuple[int, int]], length: int, shares: Sequence[float]) -> list[int]:
    """Returns how many tokens each field may have in a row of `tokens` that is cut to `length`; none below 0.

    The row may consist of several texts, whose `fields` come one after another, each counted from its own text's
    beginning.
    """
    sizes = [end - start for start, end in fields]
    return allocate(sizes, max(0, length - (tokens - sum(sizes))), shares)


def cut_fields(
    ids: np.ndarray, fields: Sequence[tuple[int, int]], budgets: Sequence[int], ellipsis: np.ndarray
) -> np.ndarray:
    """Cuts each field of `ids` [tokens] in its middle to its budget of tokens, as `cut_middle` does."""
    pieces, position = [], 0
    for (start, end), budget in zip(fields, budgets, strict=True):
        pieces += [ids[position:start], cut_middle(ids[start:end], budget, ellipsis)]
        position = end
    return np.concatenate([*pieces, ids[position:]])


def longest_first(first: int, second: int, length: int) -> tuple[int, int]:
    """Returns how many tokens two texts of `first` and `second` tokens keep of `length`.

    The longer one is cut until both are equally long, as transformers' `longest_first` does.
    """
    if first + second <= length:
        return first, second
    shorter = min(first, second, length // 2)
    return (shorter, length - shorter) if first <= second else (length - shorter, shorter)


def cut_middle(ids: np.ndarray, length: int, ellipsis: np.ndarray) -> np.ndarray:
    """Returns head, `ellipsis` and tail of `ids`, `length` tokens in total; only the head where that is too short."""
    head, tail = ends_kept(len(ids), length, len(ellipsis))
    if not tail:
        return ids[:head]
    return np.concatenate([ids[:head], ellipsis, ids[len(ids) - tail :]])


def ends_kept(size: int, length: int, ellipsis: int) -> tuple[int, int]:
    """Returns how many of `size` tokens `cut_middle` keeps at the beginning and at the end; the end may be 0."""
    if size <= length:
        return size, 0
    if length < ellipsis + 2:
        return length, 0
    head = (length - ellipsis + 1) // 2
    return head, length - ellipsis - head


def allocate(sizes: Sequence[int], budget: int, shares: Sequence[float]) -> list[int]:
    """Divides `budget` tokens among fields of `sizes`, in proportion to `shares`.

    A field smaller than its share takes its size, and the rest goes to the others. The whole budget is used unless all
    fields fit in it.
    """
    if sum(sizes) <= budget:
        return list(sizes)
    kept, cut = [0] * len(sizes), list(range(len(sizes)))
    while True:
        level = (budget - sum(kept)) / sum(shares[field] for field in cut)
        small = [field for field in cut if sizes[field] <= level * shares[field]]
        if not small:
            break
        for field in small:
            kept[field] = sizes[field]
        cut = [field for field in cut if field not in small]
    for field in cut:
        kept[field] = int(level * shares[field])
    for field in cut[: budget - sum(kept)]:  # the remainder of rounding, less than one token a field
        kept[field] += 1
    return kept
