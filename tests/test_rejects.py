"""How many rejects a run lets pass, and what it says of more."""

from collections import Counter

import pyarrow as pa
import pytest

from lmsys_ray.rejects import refusal, too_many, unscorable
from lmsys_ray.scores import failed_set_aside, merged, rows_between, with_failed


@pytest.mark.parametrize(
    ("rejects", "rows", "share", "stops"),
    [
        (0, 0, 0.01, False),
        (1, 10, 0.01, False),  # one bad row of ten is a large share, and no reason to stop
        (10, 20, 0.01, False),
        (11, 20, 0.01, True),
        (11, 1100, 0.01, False),
        (12, 1100, 0.01, True),
        (3, 3, 0.01, True),  # nothing could be scored
        (3, 3, 1.0, False),
        (11, 100_000, 0.0, True),
    ],
)
def test_share_of_rejects_stops_a_run(rejects: int, rows: int, share: float, stops: bool) -> None:
    assert too_many(rejects, rows, share) == stops


def test_reasons_are_counted_without_their_details() -> None:
    reasons = Counter({f"prompt is not valid JSON (Expecting , at character {n})": 2 for n in range(9)})
    reasons["id is missing"] = 30
    said = str(refusal(48, 200, 0.01, reasons, "runs/x/rejects.jsonl"))
    assert said == (
        "48 of 200 rows are rejects, more than max_error_rate = 0.01 lets pass (id is missing: 30, prompt is not valid "
        "JSON: 18); mend what runs/x/rejects.jsonl lists, or go on by --set max_error_rate=SHARE"
    )


SHARD = pa.table({"row": [5, 6, 7], "id": ["x", "y", "z"], "rejected": [True, False, False]})


def test_a_row_that_one_member_cannot_score_is_a_reject_for_all() -> None:
    fine = pa.table({"row": [6, 7], "a": [0.1, 0.2]})
    lacking = with_failed(pa.table({"row": [7], "a": [0.3]}), {6: "too long"})
    assert lacking["row"].to_pylist() == [6, 7]
    shard, members, failed = failed_set_aside(SHARD, {"fine": fine, "lacking": lacking})
    assert shard["rejected"].to_pylist() == [True, True, False]
    assert {name: scores.to_pydict() for name, scores in members.items()} == {
        "fine": {"row": [7], "a": [0.2]},
        "lacking": {"row": [7], "a": [0.3]},
    }
    assert unscorable(shard, failed) == [
        {"file": None, "row": None, "id": "y", "reason": "too long", "member": "lacking"}
    ]


def test_parts_in_both_orders_are_put_together_order_by_order() -> None:
    whole = pa.table({"row": [0, 1, 2, 0, 1, 2], "order": [0, 0, 0, 1, 1, 1]})
    parts = [rows_between(whole, 0, 2, orders=2), rows_between(whole, 2, 3, orders=2)]
    assert parts[0].to_pydict() == {"row": [0, 1, 0, 1], "order": [0, 0, 1, 1]}
    assert merged(parts, orders=2).to_pydict() == whole.to_pydict()
