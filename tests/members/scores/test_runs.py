"""Scores of a member of another run: by row where the rows are the same, by id where they are others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.protocol import CONVERSATIONS, Scores
from lmsys_ray.members.registry import kind_named, validated
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.preflight import check
from lmsys_ray.scoring.score_tables import score_table
from lmsys_ray.scoring.settings import Settings
from tests.evaluation.runs import SHARD_ROWS, drawn, make_run

KIND = kind_named("scores")
ROWS = 3 * SHARD_ROWS + 10
PROBABILITIES = drawn(ROWS, seed=4)[0].astype(np.float32)
REJECTED = 70


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    prompts = [f"prompt {n}" if n != REJECTED else "" for n in range(ROWS)]
    return make_run(tmp_path, prompts, {"judge": PROBABILITIES}, {"judge": 1.0})[0]


def values(run: RunDirectory, **more: Any) -> dict[str, Any]:
    return {"kind": "scores", "path": str(run.path), "member": "judge", **more}


def opened(run: RunDirectory, **more: Any) -> Any:
    return KIND.scorer(KIND.preflight(validated(values(run, **more)), "members.m"), "auto")


def rows_of(numbers: list[int], ids: list[str] | None = None) -> pa.Table:
    empty = [""] * len(numbers)
    return pa.table([numbers, ids or [f"id{n}" for n in numbers], empty, empty, empty], schema=CONVERSATIONS)


def check_found(scores: Scores, rows: list[int]) -> None:
    assert scores.failed == {}
    np.testing.assert_array_equal(scores.probabilities, PROBABILITIES[rows])


@pytest.mark.parametrize(("first", "last"), [(0, 64), (64, 70), (100, 150), (5, 69), (71, ROWS), (190, ROWS), (0, 0)])
def test_rows_are_found_in_shards_of_any_size(run: RunDirectory, first: int, last: int) -> None:
    check_found(opened(run).score(rows_of([*range(first, last)])), [*range(first, last)])


def test_the_same_rows_need_no_other_shards(run: RunDirectory) -> None:
    """Those of a run of 10^8 rows are not held in memory, nor read before the first row is scored."""
    scorer = opened(run)
    for number in (0, 2, 3):
        run.score("judge", number).unlink()
    scorer_later = scorer.score(rows_of([*range(71, 128)]))
    check_found(scorer_later, [*range(71, 128)])
    with pytest.raises(
        RunError, match=r"scores/judge/00000\.parquet is gone; start score\.py on that run, which makes"
    ):
        scorer.score(rows_of([0, 1], ["id90", "id91"]))


def test_other_rows_are_found_by_id(run: RunDirectory) -> None:
    scorer = opened(run)
    order = [*map(int, np.random.default_rng(1).permutation(REJECTED)), 199, 80]
    check_found(scorer.score(rows_of([*range(len(order))], [f"id{n}" for n in order])), order)
    check_found(scorer.score(rows_of([5000, 5001], ["id7", "id201"])), [7, 201])
    check_found(scorer.score(rows_of([3, 4])), [3, 4])
    check_found(scorer.score(rows_of([4, 3])), [4, 3])


@pytest.mark.parametrize("numbers", [[69, 70, 71], [3, 4, 5]])
def test_rows_that_the_member_has_no_score_of_are_named(run: RunDirectory, numbers: list[int]) -> None:
    scores = opened(run).score(rows_of(numbers, ["id69", "id70", "id71"]))
    assert scores.failed == {1: f"its id has no score of judge in {run.path} (id id70)"}
    np.testing.assert_array_equal(scores.probabilities[[0, 2]], PROBABILITIES[[69, 71]])
    scores = opened(run).score(rows_of([0, 1], ["id0", "elsewhere"]))
    assert scores.failed == {1: f"its id has no score of judge in {run.path} (id elsewhere)"}


def test_early_ends_of_shards_are_found(tmp_path: Path) -> None:
    """Shards of large cells have fewer rows than the setting says, so that a row's shard is not what it divides to."""
    (tmp_path / "in").mkdir()
    run, _ = make_run(tmp_path / "in", ["p"] * ROWS, {"judge": PROBABILITIES}, {"judge": 1.0})
    manifest = json.loads((tmp_path / "in" / "run" / "manifest.json").read_text())
    manifest.pop("checksum")
    manifest["ingest"]["shard_rows"], manifest["format"] = 1024, 2
    (tmp_path / "in" / "run" / "manifest.json").write_text(json.dumps(manifest))
    scorer = opened(run)
    for number in range(ROWS):
        check_found(scorer.score(rows_of([number])), [number])


def test_two_scores_stay_two_scores(run: RunDirectory) -> None:
    drawn_scores = np.random.default_rng(2).normal(size=(ROWS, 2)).astype(np.float32)
    for number in range(4):
        row = run.read_scores("judge", number)["row"]
        mine = drawn_scores[row.to_numpy()]
        run.write_scores(
            "judge", number, score_table(row, Scores(None, {"score_a": mine[:, 0], "score_b": mine[:, 1]}), False)
        )
    for rows, ids in (([0, 1, 2], None), ([0, 1], ["id101", "id100"]), ([], [])):
        scores = opened(run).score(rows_of(rows, ids))
        wanted = [int(one[2:]) for one in ids] if ids is not None else rows
        assert scores.probabilities is None
        np.testing.assert_array_equal(np.column_stack([*scores.raw.values()]), drawn_scores[wanted])


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(UsageError) as refused:
        KIND.preflight(validated({"kind": "scores", "path": str(path), **more}), "members.m")
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix("settings: members.m.")


def test_a_run_without_these_scores_is_one_sentence(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert refusal(path, member="other") == f"path: {path} has no scores of other; it has those of judge"
    assert refusal(path) == f"path: {path} has no submission.csv; finish that run, or name one of its members by member"
    said = refusal(path, member="judge", columns={"a": "x"})
    assert said == "columns is of a file; leave it out where member names scores of a run"
    run.score("judge", 1).unlink()
    said = refusal(path, member="judge")
    assert said.startswith(f"path: {path} has scores of judge for 3 of its 4 shards; start score.py on that run, whic")
    (path / "manifest.json").write_text("{}")
    said = refusal(path, member="judge")
    assert said.startswith(f"path: {path}/manifest.json cannot be read (it names no format); start score.py on that")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refusal(folder, member="x").startswith(f"path: {folder} is no run directory, for it has no manifest.json")
    assert refusal(folder).startswith(f"path: {folder} is a directory, but no run directory; name one of its files")
    (folder / "s.csv").write_text("id,a,b,tie\n1,1,0,0\n")
    assert refusal(folder / "s.csv", member="x").startswith(f"path: {folder / 's.csv'} is no run directory")


def content(run: RunDirectory, folder: Path, **more: Any) -> tuple[str, str]:
    (folder / "in.csv").write_text("id,prompt,response_a,response_b\nid0,a,b,c\n")
    member = KIND.preflight(validated(values(run, **more)), "members.m")
    chosen = {"input": str(folder / "in.csv"), "output": str(folder / "new"), "members": {"m": member}}
    found = fingerprint(Settings.model_validate(chosen))["members"]["m"]
    return found["path"], found["path_content"]


def test_the_digest_is_of_what_is_read(run: RunDirectory, tmp_path: Path) -> None:
    run.submission.write_text("id,winner_model_a,winner_model_b,winner_tie\nid0,1,0,0\n")
    scores, submission = content(run, tmp_path), content(run, tmp_path, member=None)
    assert (scores[0], submission[0]) == (str(run.path), str(run.submission))
    run.create_lock("someone is at work")
    (tmp_path / "run" / "manifest.json").write_bytes((tmp_path / "run" / "manifest.json").read_bytes() + b"\n")
    (tmp_path / "run" / "rejects.jsonl").write_text("{}\n")
    assert (content(run, tmp_path), content(run, tmp_path, member=None)) == (scores, submission)
    run.submission.write_text("id,winner_model_a,winner_model_b,winner_tie\nid0,0,1,0\n")
    assert content(run, tmp_path) == scores
    assert content(run, tmp_path, member=None) != submission
    shard = run.read_scores("judge", 2)
    run.write_scores("judge", 2, shard.set_column(1, "a", pa.array(np.zeros(shard.num_rows, np.float32))))
    assert content(run, tmp_path) != scores


@pytest.mark.parametrize("place", ["", "/submission.csv", "/scores/judge/00000.parquet"])
@pytest.mark.parametrize("member", [None, "judge"])
def test_the_own_output_is_refused(run: RunDirectory, tmp_path: Path, place: str, member: str | None) -> None:
    member_values = {"kind": "scores", "path": f"{run.path}{place}", "member": member}
    chosen = {"input": str(tmp_path / "input.csv"), "output": str(tmp_path / "run"), "members": {"m": member_values}}
    with pytest.raises(UsageError, match=r"members\.m\.path = .* is of this run's own output; name another"):
        check(Settings.model_validate(chosen))


def test_a_run_of_other_rows_is_refused_with_an_id_of_each_side(run: RunDirectory) -> None:
    settings = validated(values(run))
    KIND.check_ids(settings, "members.m", pa.array(["id3", "id150"]))
    with pytest.raises(
        UsageError, match=r"has none of the first 2 ids of the input: not 3, and its own begin with id0;"
    ):
        KIND.check_ids(settings, "members.m", pa.array(["3", "150"]))
