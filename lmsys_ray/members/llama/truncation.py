"""Cutting a row of tokens to its length: pure functions on token ids.

`right` drops what exceeds the end, as the reference notebook does; a row with long answers may lose response B
altogether. `balanced` shares the tokens among the fields and cuts each in its middle, as the best solutions of the
LMSYS competition did: what opens and what ends an answer tells more than what lies between.
"""

from collections.abc import Sequence

import numpy as np

SHARES = {"prompt": 1, "response_a": 2, "response_b": 2}
"""How fields that are all too long share the tokens: 20 % the prompt, 40 % each response."""


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

    `fields` says where each field's tokens begin and end, in ascending order, and `shares` what part of the tokens it
    may have; tokens between the fields belong to the template and are all kept. A field that is cut keeps its head,
    then `ellipsis`, then its tail; one whose share is too small for that keeps its head alone. Rows that fit come back
    as they are.
    """
    if len(ids) <= length:
        return ids
    sizes = [end - start for start, end in fields]
    kept = allocate(sizes, max(0, length - (len(ids) - sum(sizes))), shares)
    pieces, position = [], 0
    for (start, end), tokens in zip(fields, kept, strict=True):
        pieces += [ids[position:start], cut_middle(ids[start:end], tokens, ellipsis)]
        position = end
    return np.concatenate([*pieces, ids[position:]])[:length]


def cut_middle(ids: np.ndarray, length: int, ellipsis: np.ndarray) -> np.ndarray:
    """Returns head, `ellipsis` and tail of `ids`, `length` tokens in all; the head where that is too short for both."""
    if len(ids) <= length:
        return ids
    if length < len(ellipsis) + 2:
        return ids[:length]
    head = (length - len(ellipsis) + 1) // 2
    tail = length - len(ellipsis) - head
    return np.concatenate([ids[:head], ellipsis, ids[len(ids) - tail :]])


def allocate(sizes: Sequence[int], budget: int, shares: Sequence[float]) -> list[int]:
    """Shares `budget` tokens among fields of `sizes`, in proportion to `shares`.

    A field smaller than its share takes its size, and what it leaves goes to the others. All of the budget is given out
    unless all fields fit in it.
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
    for field in cut[: budget - sum(kept)]:  # what rounding left: fewer tokens than there are fields
        kept[field] += 1
    return kept
