"""The whole job with scores of another run, in each form that these may have."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.scoring.job import Report, score
from lmsys_ray.scoring.preflight import check
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings
from tests.members.lightgbm.texts import conversations

pytestmark = pytest.mark.usefixtures("ray_session")

ROWS = 40
PRIOR = [0.2, 0.3, 0.5]
TREES = {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}


def write_input(path: Path, order: list[int]) -> None:
    table = conversations(ROWS, seed=2).to_pylist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for n in order:
            writer.writerow([f"row {n}", table[n]["prompt"], table[n]["response_a"], table[n]["response_b"]])


def scored(folder: Path, output: str, members: Mapping[str, Any], **changes: Any) -> Report:
    values = {"input": str(folder / "in.csv"), "output": str(folder / output), "shard_rows": 8, "prior": PRIOR}
    with Display() as display:
        return score(check(Settings.model_validate({**values, "members": members, **changes})), display)


def submission(folder: Path, output: str) -> dict[str, np.ndarray]:
    with (folder / output / "submission.csv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return {line[0]: np.array(line[1:], np.float64) for line in lines}


def member_scores(folder: Path, output: str, member: str) -> np.ndarray:
    files = sorted((folder / output / "scores" / member).glob("*.parquet"))
    return np.concatenate([np.column_stack([pq.read_table(file)[c] for c in ("a", "b", "tie")]) for file in files])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """Holds a finished run `first` of trees."""
    folder = tmp_path_factory.mktemp("job")
    write_input(folder / "in.csv", [*range(ROWS)])
    scored(folder, "first", {"trees": TREES})
    return folder


def test_scores_of_a_run_are_the_same_in_every_form(folder: Path) -> None:
    lines = [
        dict(zip(("id", "winner_model_a", "winner_model_b", "winner_tie"), [name, *row.tolist()], strict=True))
        for name, row in submission(folder, "first").items()
    ]
    shuffled = [lines[place] for place in np.random.default_rng(1).permutation(ROWS)]
    (folder / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shuffled))
    pq.write_table(pa.Table.from_pylist(shuffled), folder / "s.parquet")
    first, paths = folder / "first", {"lines": "s.jsonl", "parquet": "s.parquet", "file": "first/submission.csv"}
    members: dict[str, Any] = {name: {"kind": "scores", "path": str(folder / path)} for name, path in paths.items()}
    members["run"] = {"kind": "scores", "path": str(first)}
    members["own"] = {"kind": "scores", "path": str(first), "member": "trees"}
    report = scored(folder, "second", {**members, "trees": TREES})
    assert report.scored == dict.fromkeys([*members, "trees"], ROWS)
    trees = member_scores(folder, "first", "trees")
    np.testing.assert_array_equal(member_scores(folder, "second", "own"), trees)
    for name in members:
        np.testing.assert_allclose(member_scores(folder, "second", name), trees, atol=1e-7)

    scored(folder, "third", {"own": members["own"]})
    assert (folder / "third" / "submission.csv").read_bytes() == (first / "submission.csv").read_bytes()


@pytest.mark.slow
def test_scores_are_blended_with_models(folder: Path) -> None:
    ids = [f"row {n}" for n in range(ROWS)]
    values = np.random.default_rng(3).dirichlet([1, 1, 1], ROWS)
    np.savetxt(folder / "mine.csv", np.column_stack([ids, values]), "%s", ",", header="id,a,b,tie", comments="")
    mine = {"kind": "scores", "path": str(folder / "mine.csv"), "weight": 0.25}
    scored(folder, "blend", {"mine": mine, "trees": {**TREES, "weight": 0.75}})
    found = np.array([*submission(folder, "blend").values()])
    np.testing.assert_allclose(found, 0.25 * values + 0.75 * member_scores(folder, "first", "trees"), atol=1e-6)


@pytest.mark.slow
def test_the_run_goes_on_as_long_as_its_scores_are_the_same(folder: Path, tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", [*range(ROWS)])
    scored(tmp_path, "first", {"trees": TREES})
    own = {"kind": "scores", "path": str(tmp_path / "first"), "member": "trees"}
    assert scored(tmp_path, "second", {"own": own}).scored == {"own": ROWS}
    scored(tmp_path, "first", {"trees": TREES}, temperature=2.0)
    (tmp_path / "second" / "scores" / "own" / "00002.parquet").unlink()
    assert scored(tmp_path, "second", {"own": {**own, "weight": 2}}).scored == {"own": 8}
    assert scored(tmp_path, "second", {"own": {**own, "link": "rao_kupper", "workers": 2}}).scored == {}
    with pytest.raises(RunError, match=r"was made with members\.own\.member = \"trees\", now it is null"):
        scored(tmp_path, "second", {"own": {**own, "member": None}})


@pytest.mark.slow
def test_a_member_of_a_run_over_other_rows_is_joined_by_id(folder: Path, tmp_path: Path) -> None:
    order = [int(n) for n in np.random.default_rng(4).permutation(ROWS)][:25]
    write_input(tmp_path / "in.csv", order)
    own = {"kind": "scores", "path": str(folder / "first"), "member": "trees"}
    scored(tmp_path, "run", {"own": own}, shard_rows=16)
    np.testing.assert_array_equal(member_scores(tmp_path, "run", "own"), member_scores(folder, "first", "trees")[order])


@pytest.mark.slow
def test_an_extended_run_has_the_links_of_all_its_rows_and_lends_its_scores(tmp_path: Path) -> None:
    write_input(tmp_path / "in.csv", [*range(ROWS)])
    drawn = np.random.default_rng(7).normal(size=(ROWS, 2)) * np.linspace(0.1, 9, ROWS)[:, None]
    lines = [{"id": f"row {n}", "score_a": a, "score_b": b} for n, (a, b) in enumerate(drawn.tolist())]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    members = {"trees": TREES, "two": {"kind": "scores", "path": str(tmp_path / "two.jsonl")}}
    links = []
    for output, limit in (("first", 13), ("first", None), ("whole", None)):
        scored(tmp_path, output, members, limit=limit)
        links.append(json.loads((tmp_path / output / "manifest.json").read_text())["links"]["two"])
    assert links[1] == links[2]
    assert links[0]["scale"] < links[2]["scale"] / 2
    assert (tmp_path / "first" / "submission.csv").read_bytes() == (tmp_path / "whole" / "submission.csv").read_bytes()
    own = {"kind": "scores", "path": str(tmp_path / "first"), "member": "trees"}
    scored(tmp_path, "second", {"own": own}, shard_rows=16)
    np.testing.assert_array_equal(member_scores(tmp_path, "second", "own"), member_scores(tmp_path, "whole", "trees"))


@pytest.mark.slow
def test_two_scores_become_probabilities_by_their_link(folder: Path) -> None:
    drawn = np.random.default_rng(6).normal(size=(ROWS, 2)).astype(np.float32)
    lines = [{"id": f"row {n}", "score_a": float(a), "score_b": float(b)} for n, (a, b) in enumerate(drawn)]
    (folder / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    two = {"kind": "scores", "path": str(folder / "two.jsonl"), "link": "davidson", "scale": 0.5, "tie": 0.7}
    scored(folder, "two", {"two": {**two, "weight": 0.25}, "trees": {**TREES, "weight": 0.75}})
    d = (drawn[:, 0] - drawn[:, 1]).astype(np.float64) / 0.5
    odds = np.column_stack([np.exp(d / 2), np.exp(-d / 2), np.full(ROWS, 0.7)])
    expected = odds / odds.sum(axis=1, keepdims=True)
    trees = member_scores(folder, "first", "trees")
    found = np.array([*submission(folder, "two").values()])
    np.testing.assert_allclose(found, 0.25 * expected + 0.75 * trees, atol=1e-6)

    kept = {
        "kind": "scores",
        "path": str(folder / "two"),
        "member": "two",
        "link": "rao_kupper",
        "scale": 2,
        "tie": 0.4,
    }
    scored(folder, "again", {"kept": kept})
    d = d / 4
    a, b = 1 / (1 + np.exp(0.4 - d)), 1 / (1 + np.exp(0.4 + d))
    found = np.array([*submission(folder, "again").values()])
    np.testing.assert_allclose(found, np.column_stack([a, b, 1 - a - b]), atol=1e-6)
    report = scored(folder, "again", {"kept": {**kept, "tie": 0.0}})
    assert report.scored == {}
    assert np.array([*submission(folder, "again").values()])[:, 2].max() < 1e-6


def test_missing_rows_are_named_and_the_others_scored(folder: Path) -> None:
    lines = (folder / "first" / "submission.csv").read_text().splitlines()
    lines[9] = "row 8,0.9,0.9,0.9"
    kept = [line for line in lines if not line.startswith(("row 3,", "row 30,"))]
    (folder / "some.csv").write_text("\n".join(kept) + "\n")
    members = {"some": {"kind": "scores", "path": str(folder / "some.csv")}, "trees": TREES}
    report = scored(folder, "some", members)
    assert report.scored == {"some": ROWS - 3, "trees": ROWS}
    first, found = submission(folder, "first"), submission(folder, "some")
    assert found.keys() == first.keys()
    for name, row in found.items():
        np.testing.assert_allclose(row, PRIOR if name in ("row 3", "row 8", "row 30") else first[name], atol=1e-6)
    rejects = [json.loads(line) for line in (folder / "some" / "rejects.jsonl").read_text().splitlines()]
    missing = f"its id is not in {folder / 'some.csv'}, which has ids such as row 0"
    assert [(reject["id"], reject["member"], reject["reason"]) for reject in rejects] == [
        ("row 3", "some", f"{missing} (id row 3)"),
        ("row 8", "some", f"its row in {folder / 'some.csv'} holds no probabilities (id row 8: 0.9, 0.9, 0.9)"),
        ("row 30", "some", f"{missing} (id row 30)"),
    ]


@pytest.mark.slow
def test_too_many_missing_rows_are_one_sentence(folder: Path) -> None:
    lines = (folder / "first" / "submission.csv").read_text().splitlines()
    (folder / "few.csv").write_text("\n".join(lines[:26]) + "\n")
    path = folder / "few.csv"
    with pytest.raises(RunError) as refused:
        scored(folder, "few", {"few": {"kind": "scores", "path": str(path)}})
    assert f"lets pass (its id is not in {path}, which has ids such as row 0: " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_file_that_repeats_an_id_ends_the_job_with_its_sentence(folder: Path) -> None:
    lines = (folder / "first" / "submission.csv").read_text().splitlines()
    (folder / "twice.csv").write_text("\n".join([*lines, lines[5]]) + "\n")
    with pytest.raises(RunError) as refused:
        scored(folder, "twice", {"twice": {"kind": "scores", "path": str(folder / "twice.csv")}})
    assert str(refused.value) == (
        f"members.twice: {folder / 'twice.csv'}: id row 4 is in rows 5 and {ROWS + 1}; keep one of them"
    )
