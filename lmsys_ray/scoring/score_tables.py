"""Tables of one shard: the rows that a member scores, and the scores that are kept."""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES, SWAPPED
from lmsys_ray.members.protocol import CONVERSATIONS, KEPT, Scores
from lmsys_ray.run_directory.score_checks import TWO_SCORES, are_probabilities, are_scores, scores_of


def scorable(shard: pa.Table) -> pa.Table:
    """Returns the rows of a shard that members score, with the columns of `CONVERSATIONS`."""
    return shard.filter(pc.invert(shard["rejected"])).select(CONVERSATIONS.names)


def with_failed(scores: pa.Table, failed: Mapping[int, str]) -> pa.Table:
    """Returns `scores` with the rows of `failed` (row number in the run: reason), which have null probabilities."""
    if not failed:
        return scores
    reasons = pa.table({"row": pa.array(failed.keys(), pa.int64()), "reason": pa.array(failed.values(), pa.string())})
    return pa.concat_tables([scores, reasons], promote_options="default").sort_by("row")


def invalid_rows(scores: pa.Table) -> dict[int, str]:
    """Returns the rows of a `score_table` without probabilities or scores, as after NaN, by number, and why."""
    if TWO_SCORES[0] in scores.column_names:
        rows = scores["row"].to_numpy()[~are_scores(scores_of(scores))].tolist()
        return dict.fromkeys(rows, "the model gave no score (not finite)")
    good = np.ones(scores.num_rows, dtype=bool)
    for suffix in ("", "_plain", "_swapped"):
        if f"a{suffix}" in scores.column_names:
            good &= are_probabilities(np.column_stack([scores[name + suffix].to_numpy() for name in CLASSES]))
    rows = scores["row"].to_numpy()[~good].tolist()
    return dict.fromkeys(rows, "the model gave no probabilities (not finite, negative, or of another sum than 1)")


def without(scores: pa.Table, rows: Collection[int]) -> pa.Table:
    """Returns `scores` without some rows, given by their numbers in the run."""
    return scores.filter(pc.invert(pc.is_in(scores["row"], pa.array(rows, pa.int64())))) if rows else scores


def fault_in(scores: Scores, rows: int) -> str | None:
    """Returns why scores cannot be those of so many rows; none where they can be."""
    if scores.probabilities is None and scores.raw.keys() != set(TWO_SCORES):
        return f"no probabilities, and {', '.join(scores.raw) or 'nothing'} where {' and '.join(TWO_SCORES)} are needed"
    if scores.probabilities is not None and scores.probabilities.shape != (rows, len(CLASSES)):
        return f"probabilities of shape {scores.probabilities.shape} for {rows} rows of {len(CLASSES)} classes"
    tokens = {} if scores.tokens is None else {"tokens": scores.tokens}
    for name, values in {**scores.raw, **tokens}.items():
        if len(values) != rows:
            return f"{len(values)} values of {name} for {rows} rows"
    if outside := [place for place in scores.failed if not 0 <= place < rows]:
        return f"a failure at place {outside[0]} of {rows} rows"
    two = TWO_SCORES if scores.probabilities is not None else ()
    other = {"row", *CLASSES, "tokens", "reason", *KEPT.names, *two}
    taken = sorted(other & scores.raw.keys())
    return f"raw outputs named {taken[0]}, as another column of scores is" if taken else None


def score_table(row: pa.ChunkedArray, scores: Scores, swap: bool) -> pa.Table:
    """Returns the scores of a shard: row, a, b, tie (float32), raw outputs, and tokens where the member counts them.

    A member that scores each response by itself has `TWO_SCORES` (float32) in place of a, b and tie. With `swap`, rows
    come as from `both_orders`, and a, b, tie are the means of the two orders. The columns `a_plain`, `a_swapped` and so
    on hold each order by itself, with A and B exchanged back.
    """
    tokens, raw = scores.tokens, dict(scores.raw)
    orders = {} if scores.probabilities is None else {"": scores.probabilities}
    if swap:
        half = len(orders[""]) // 2
        plain, swapped = orders[""][:half], orders[""][half:][:, SWAPPED]
        orders = {"": (plain + swapped) / 2, "_plain": plain, "_swapped": swapped}
        row, tokens = row.slice(0, half), None if tokens is None else tokens[:half] + tokens[half:]
        raw = {f"{name}_{order}": part for name, both in raw.items() for order, part in _halves(both).items()}
    columns: dict[str, object] = {"row": row}
    for suffix, values in orders.items():
        columns |= {name + suffix: values[:, place].astype(np.float32) for place, name in enumerate(CLASSES)}
    columns |= raw
    if tokens is not None:
        columns["tokens"] = tokens
    return pa.table(columns)


def with_kept_shares(scores: pa.Table, encoded: pa.Table, orders: int) -> pa.Table:
    """Returns the scores of rows with the columns of `KEPT` where their encoder gave them.

    With both orders of A and B, `encoded` holds them one after another, and the means of both are kept.
    """
    if not set(KEPT.names) <= set(encoded.column_names):
        return scores
    prompt, a, b = (encoded[name].to_numpy() for name in KEPT.names)
    if orders == 2:
        rows = scores.num_rows
        prompt, a, b = ((x[:rows] + y[rows:]) / 2 for x, y in ((prompt, prompt), (a, b), (b, a)))
    for field, values in zip(KEPT, (prompt, a, b), strict=True):
        scores = scores.append_column(field.name, pa.array(values, field.type))  # null in rows that failed
    return scores


def _halves(both: np.ndarray) -> dict[str, np.ndarray]:
    half = len(both) // 2
    return {"plain": both[:half], "swapped": both[half:]}
