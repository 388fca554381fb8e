"""How many rejects a run may have, and what it says of more."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from lmsys_ray.ensemble.join import set_failed_aside
from lmsys_ray.ensemble.rejects import refusal, too_many, unscorable
from lmsys_ray.members.orders import merged, rows_between
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Ingested
from lmsys_ray.scoring.job import Report
from lmsys_ray.scoring.score_tables import with_failed
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.summary import summary


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
    reasons["prompt is not valid JSON (Expecting ',' delimiter: line 1 column 9 (char 8))"] = 1
    reasons["lines 2 to 5: text follows a closing quote"] = 2
    reasons["lines 7 to 9: text follows a closing quote"] = 3
    reasons["id is missing"] = 30
    said = str(refusal(48, 200, 0.01, reasons, "runs/x/rejects.jsonl"))
    assert said == (
        "48 of 200 rows are rejects, more than max_error_rate = 0.01 lets pass (id is missing: 30, prompt is not valid "
        "JSON: 19, text follows a closing quote: 5); mend what runs/x/rejects.jsonl lists, or continue with --set "
        "max_error_rate=SHARE"
    )


def test_warnings_are_in_the_summary_and_fail_a_strict_run(tmp_path: Path) -> None:
    member = {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}
    chosen = Settings(input=["in.csv"], output=str(tmp_path), members={"lightgbm": member})
    told = "in.csv, row 2 (id 2): lines 3 to 5 look like rows"
    warned = Report(Ingested(rows=30, lines=30, warnings=12, warned=[told]))
    lines = summary(warned, chosen, RunDirectory(tmp_path))
    assert f"warning: {told}" in lines
    assert "warnings: 11 more of this sort" in lines
    assert not warned.clean
    assert Report(Ingested(rows=30, lines=30)).clean


SHARD = pa.table({"row": [5, 6, 7], "id": ["x", "y", "z"], "rejected": [True, False, False]})


def test_a_row_that_one_member_cannot_score_is_a_reject_for_all() -> None:
    fine = pa.table({"row": [6, 7], "a": [0.1, 0.2]})
    lacking = with_failed(pa.table({"row": [7], "a": [0.3]}), {6: "too long"})
    assert lacking["row"].to_pylist() == [6, 7]
    shard, members, failed = set_failed_aside(SHARD, {"fine": fine, "lacking": lacking})
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
