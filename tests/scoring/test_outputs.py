"""The outputs of a run whose rows carry labels and models, against the same figures by plain Python."""

import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray import CLASSES
from lmsys_ray.cli import evaluate
from lmsys_ray.data.readers import read_rows
from lmsys_ray.data.readers.files import is_of_run
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.ensemble.exports import scores as scores_export
from lmsys_ray.ensemble.submission import Submission
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.evaluation.carried_labels import carried_labels
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring import job
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.job import score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.rebuild import new_manifest
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.summary import summary

BAD, FAILED, UNLABELLED, TURNS, SAME, APART = 3, 5, 7, 9, 11, 13
ROWS = 24
RECORDS: list[dict[str, Any]] = [
    {
        "id": f"id{n}",
        "model_a": "kite",
        "model_b": "moss",
        "prompt": f"Question {n}?",
        "response_a": f"Answer {n}",
        "response_b": f'["Other \\" {n}"]',
        **{f"winner_{name}": int(n % 3 == place) for place, name in enumerate(("model_a", "model_b", "tie"))},
    }
    for n in range(ROWS)
]
RECORDS[BAD]["prompt"] = '["unclosed'
RECORDS[UNLABELLED] |= dict.fromkeys(("winner_model_a", "winner_model_b", "winner_tie"))
RECORDS[TURNS] |= {"prompt": '["One?", "Two?"]', "response_a": '["1", "2"]', "response_b": '["1", "two"]'}
RECORDS[SAME] |= {"response_a": '["the same"]', "response_b": "the same"}
RECORDS[APART] |= {"prompt": '["One?", "Two?"]', "response_a": '["1", "2"]', "response_b": '["uno", "dos"]'}
RECORDS.insert(ROWS - 2, {**RECORDS[BAD], "prompt": "again"})

DRAWN = {name: np.random.default_rng(seed).dirichlet([0.7, 0.7, 0.4], ROWS) for seed, name in enumerate(("x", "y"))}
WEIGHTS = {"x": 0.75, "y": 0.25}


def settings_in(folder: Path, **outputs: Any) -> Settings:
    member = {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}
    return Settings.model_validate(
        {
            "input": str(folder / "in.jsonl"),
            "output": str(folder / "run"),
            "shard_rows": 5,
            "members": {name: {**member, "weight": weight} for name, weight in WEIGHTS.items()},
            "outputs": outputs,
        }
    )


def make_run(folder: Path, records: list[dict[str, Any]] = RECORDS) -> RunDirectory:
    """Makes a run to its last score, of which member y could not give that of row `FAILED`."""
    (folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = settings_in(folder)
    manifest = new_manifest(fingerprint(settings))
    run = RunDirectory(settings.output, manifest.binding)
    run.prepare()
    run.write_manifest(manifest)
    reading = Reading.from_dict(manifest.ingest.reading)
    batches = ((path, table) for path in settings.input for table in read_rows(path, reading=reading))
    counts = ingest(batches, run, 5, False, lambda rows: None, files=settings.input, carried=reading.carried)
    for number in range(counts.shards):
        shard = run.read_shard(number)
        rows = shard.filter(pa.compute.invert(shard["rejected"]))["row"].to_pylist()
        for name, drawn in DRAWN.items():
            run.write_scores(name, number, scores_of(name, rows, drawn))
    manifest.ingested = counts
    run.write_manifest(manifest)
    return run


def scores_of(name: str, rows: list[int], drawn: np.ndarray) -> pa.Table:
    failed = [name == "y" and row == FAILED for row in rows]
    columns: dict[str, pa.Array] = {"row": pa.array(rows, pa.int64())}
    for place, label in enumerate(CLASSES):
        columns[label] = pa.array(drawn[rows, place].astype(np.float32), mask=np.array(failed))
    if name == "x":
        columns["tokens"] = pa.array([10 * row for row in rows], pa.int64())
        if 10 in rows:  # as after an update of the package within a run
            columns["kept_a"] = pa.array([0.5 for _ in rows], pa.float32())
    if any(failed):
        columns["reason"] = pa.array(["too odd" if bad else None for bad in failed], pa.string())
    return pa.table(columns)


def no_ray(*_: Any) -> Any:
    raise AssertionError("Ray is started")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(job, "ray_cluster", no_ray)
    return make_run(tmp_path)


def scored(run: RunDirectory, **outputs: Any) -> Report:
    with Display() as display:
        return score(settings_in(Path(run.path).parent, **outputs), display)


def lines(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(run: RunDirectory) -> set[str]:
    known = ("scores.parquet", "doubtful.jsonl", "submission.csv")
    return {name for name in os.listdir(run.path) if name.startswith(("preferences", ".")) or name in known}


def mixed(n: int) -> list[float]:
    """The blend of row n."""
    parts = [[np.float32(p).item() * WEIGHTS[name] for p in DRAWN[name][n]] for name in WEIGHTS]
    sums = [sum(part) for part in zip(*parts, strict=True)]
    return [p / math.fsum(sums) for p in sums]


GOOD = [n for n in range(ROWS) if n not in (BAD, FAILED)]


@pytest.mark.parametrize("group_rows", [1, 11, 1 << 16])
def test_scores_parquet_has_every_row_and_why_it_has_no_score(
    run: RunDirectory, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_export, "_GROUP_ROWS", group_rows)
    report = scored(run)
    assert pq.read_metadata(run.score_table).num_row_groups == {1: 5, 11: 2}.get(group_rows, 1)
    table = pq.read_table(run.score_table)
    assert table.column_names[:5] == ["row", "id", "label", "model_a", "model_b"]
    assert table.column_names[-4:] == ["a", "b", "tie", "reason"]
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [f"id{n}" for n in range(ROWS)]
    assert [row["row"] for row in rows] == list(range(ROWS))
    for n, row in enumerate(rows):
        assert row["label"] == (None if n == UNLABELLED else n % 3)
        assert row["x/tokens"] == (None if n == BAD else 10 * n)
        assert row["x/kept_a"] == (0.5 if 10 <= n < 15 else None)
        for name in DRAWN:
            gone = n == BAD or (n == FAILED and name == "y")
            expected = [None] * 3 if gone else [np.float32(p).item() for p in DRAWN[name][n]]
            assert [row[f"{name}/{label}"] for label in CLASSES] == expected
    for n in GOOD:
        assert [rows[n][label] for label in CLASSES] == pytest.approx(mixed(n), abs=1e-12)
        assert rows[n]["reason"] is None
    assert rows[FAILED]["reason"] == "y: too odd"
    assert rows[BAD]["reason"] == next(reject["reason"] for reject in lines(run.rejects) if reject["id"] == f"id{BAD}")
    assert [rows[BAD][label] for label in CLASSES] == pytest.approx([0.349, 0.342, 0.309])
    with (Path(run.path) / "submission.csv").open(newline="") as file:
        submitted = [[float(value) for value in line[1:]] for line in list(csv.reader(file))[1:]]
    assert submitted == [[row[label] for label in CLASSES] for row in rows]
    assert f"scores: {ROWS} rows: {Path(run.path).absolute() / 'scores.parquet'}" in summary(
        report, settings_in(Path(run.path).parent), run
    )


def expected_preferences(margin: float, most_tie: float) -> list[int]:
    found = []
    for n in GOOD:
        a, b, tie = mixed(n)
        if abs(a - b) >= margin and tie <= most_tie and n != SAME:
            found.append(n)
    return found


def check_figures(record: Mapping[str, Any], n: int) -> bool:
    """Checks the figures of a record of row n, and returns whether B is chosen."""
    a, b, tie = mixed(n)
    assert record["p_margin"] == pytest.approx(abs(a - b), abs=1e-6)
    assert record["p_chosen"] == pytest.approx(max(a, b), abs=1e-6)
    assert record["p_tie"] == pytest.approx(tie, abs=1e-6)
    assert record["agreement"] == (None if n == UNLABELLED else n % 3 == (1 if b > a else 0))
    models = ("moss", "kite") if b > a else ("kite", "moss")
    assert (record["chosen_model"], record["rejected_model"]) == models
    assert "margin" not in record
    return b > a


@pytest.mark.parametrize("file", ["jsonl", "parquet"])
def test_preferences_are_the_sure_rows(run: RunDirectory, file: str) -> None:
    asked = {"format": "trl", "file": file, "margin": 0.15, "most_tie": 0.4}
    report = scored(run, preferences=asked)
    path = Path(run.path) / f"preferences.{file}"
    found = lines(path) if file == "jsonl" else pq.read_table(path).to_pylist()
    expected = [n for n in expected_preferences(0.15, 0.4) if n not in (TURNS, APART)]
    assert 3 < len(expected) < len(GOOD) - 3
    assert [record["id"] for record in found] == [f"id{n}" for n in expected]
    for record, n in zip(found, expected, strict=True):
        texts = [f"Answer {n}", f'Other " {n}']
        assert [record["chosen"], record["rejected"]] == (texts[::-1] if check_figures(record, n) else texts)
        assert record["prompt"] == f"Question {n}?"
    assert f"preferences: {len(expected)} rows: {path}" in report.written
    reasons = {line.rpartition(": ")[2] for line in report.written if line.startswith("preferences left out: ")}
    assert reasons == {"several turns, which only trl_conversational holds", "both responses are the same"}


def test_conversations_share_a_prompt_as_far_as_they_are_the_same(run: RunDirectory) -> None:
    scored(run, preferences={"format": "trl_conversational", "margin": 0, "most_tie": 1})
    found = {record["id"]: record for record in lines(run.preferences("jsonl"))}
    assert set(found) == {f"id{n}" for n in expected_preferences(0, 1)}
    record = found[f"id{TURNS}"]
    assert [message["role"] for message in record["prompt"]] == ["user", "assistant", "user"]
    assert [message["content"] for message in record["prompt"]] == ["One?", "1", "Two?"]
    sides = [[{"role": "assistant", "content": text}] for text in ("2", "two")]
    assert [record["chosen"], record["rejected"]] == (sides[::-1] if check_figures(record, TURNS) else sides)


def test_conversations_that_part_early_go_on_from_there(run: RunDirectory) -> None:
    scored(run, preferences={"format": "trl_conversational", "margin": 0, "most_tie": 1})
    (record,) = [record for record in lines(run.preferences("jsonl")) if record["id"] == f"id{APART}"]
    assert record["prompt"] == [{"role": "user", "content": "One?"}]
    sides = [
        [{"role": role, "content": text} for role, text in (("assistant", one), ("user", "Two?"), ("assistant", two))]
        for one, two in (("1", "2"), ("uno", "dos"))
    ]
    assert [record["chosen"], record["rejected"]] == (sides[::-1] if check_figures(record, APART) else sides)


@pytest.mark.parametrize("form", ["trl", "trl_conversational"])
def test_trl_reads_preferences_as_they_are(run: RunDirectory, form: str) -> None:
    datasets = pytest.importorskip("datasets")
    data_utils = pytest.importorskip("trl.data_utils")
    found = {}
    for file in ("jsonl", "parquet"):
        scored(run, preferences={"format": form, "file": file, "margin": 0, "most_tie": 1})
        path, cache = str(run.preferences(file)), str(run.path / "cache")
        builder = {"jsonl": "json"}.get(file, file)
        found[file] = datasets.load_dataset(builder, data_files=path, split="train", cache_dir=cache).to_list()
    assert found["jsonl"] == found["parquet"]
    for record in found["jsonl"]:
        assert data_utils.is_conversational(record) == (form == "trl_conversational")
        assert data_utils.maybe_extract_prompt(dict(record)) == record
        if form == "trl_conversational":
            sides = {side: record["prompt"] + record[side] for side in ("chosen", "rejected")}
            assert data_utils.extract_prompt(sides) == {name: record[name] for name in ("prompt", *sides)}


def test_argilla_has_suggestions_and_what_people_chose(run: RunDirectory) -> None:
    scored(run, preferences={"format": "argilla", "margin": 0, "most_tie": 1})
    found = lines(run.preferences("jsonl"))
    assert [record["id"] for record in found] == [f"id{n}" for n in expected_preferences(0, 1)]
    for record in found:
        n = int(record["id"][2:])
        a, b, _ = mixed(n)
        assert set(record) == {"id", "fields", "metadata", "suggestions", "responses"}
        suggestion = record["suggestions"]["preference"]
        assert suggestion["value"] == ("b" if b > a else "a")
        assert suggestion["score"] == pytest.approx(max(a, b), abs=1e-6)
        given = [answer["value"] for answer in record["responses"]["preference"]]
        assert given == ([] if n == UNLABELLED else [CLASSES[n % 3]])
        assert record["fields"]["conversation_a"][-1]["content"] == ("2" if n in (TURNS, APART) else f"Answer {n}")
        assert record["metadata"]["p_a"] == pytest.approx(a, abs=1e-6)


def test_rewardbench_has_all_rows_that_people_decided(run: RunDirectory) -> None:
    scored(run, preferences={"format": "rewardbench", "margin": 0.9})
    found = lines(run.preferences("jsonl"))
    expected = [n for n in GOOD if n % 3 != 2 and n not in (UNLABELLED, SAME)]
    assert [record["id"] for record in found] == [f"id{n}" for n in expected]
    for record, n in zip(found, expected, strict=True):
        chosen, other = mixed(n)[n % 3], mixed(n)[1 - n % 3]
        assert record["results"] == int(chosen > other)
        assert (record["scores_chosen"], record["scores_rejected"]) == pytest.approx((chosen, other), abs=1e-6)
    assert found[0]["text_chosen"] == "\n\nHuman: Question 0?\n\nAssistant: Answer 0"
    assert found[0]["text_rejected"] == '\n\nHuman: Question 0?\n\nAssistant: Other " 0'


def plain_entropy(p: list[float]) -> float:
    return -math.fsum(value * math.log(value) for value in p if value > 0)


def test_doubtful_rows_are_the_worst_of_each_kind(run: RunDirectory) -> None:
    scored(run, doubtful=4, doubtful_texts=True)
    values: dict[str, dict[int, float]] = {"disagreement": {}, "uncertainty": {}, "label": {}}
    for n in GOOD:
        members = [(p := [np.float32(v).item() for v in DRAWN[name][n]], math.fsum(p)) for name in DRAWN]
        parts = [[value / total for value in p] for p, total in members]
        mean = [sum(part) / 2 for part in zip(*parts, strict=True)]
        values["disagreement"][n] = plain_entropy(mean) - sum(map(plain_entropy, parts)) / 2
        values["uncertainty"][n] = plain_entropy(mixed(n))
        if n != UNLABELLED:
            values["label"][n] = 1 - mixed(n)[n % 3]
    reasons: dict[int, dict[str, int]] = {}
    for kind, known in values.items():
        for rank, n in enumerate(sorted(known, key=lambda n: (-known[n], n))[:4], 1):
            reasons.setdefault(n, {})[kind] = rank
    found = lines(run.doubtful)
    assert [line["row"] for line in found] == sorted(reasons, key=lambda n: (min(reasons[n].values()), n))
    for line in found:
        n = line["row"]
        assert line["reasons"] == reasons[n]
        assert line["disagreement"] == pytest.approx(values["disagreement"][n], abs=1e-6)
        assert line["entropy"] == pytest.approx(values["uncertainty"][n], abs=1e-6)
        assert line["p_label"] == (None if n == UNLABELLED else pytest.approx(1 - values["label"][n], abs=1e-6))
        assert line["prompt"] == (["One?", "Two?"] if n in (TURNS, APART) else [f"Question {n}?"])


EVERYTHING = {"preferences": {"format": "trl_conversational", "margin": 0, "file": "parquet"}, "doubtful_texts": True}


def test_other_outputs_need_no_ray_and_replace_the_earlier_ones(run: RunDirectory) -> None:
    scored(run, **EVERYTHING)
    assert names(run) == {"scores.parquet", "preferences.parquet", "doubtful.jsonl", "submission.csv"}
    first = {name: (Path(run.path) / name).read_bytes() for name in names(run)}
    scored(run, preferences={"format": "trl"})
    assert names(run) == {"scores.parquet", "preferences.jsonl", "doubtful.jsonl", "submission.csv"}
    scored(run, scores=False, doubtful=0)
    assert names(run) == {"submission.csv"}
    scored(run, **EVERYTHING)
    assert {name: (Path(run.path) / name).read_bytes() for name in names(run)} == first
    assert all(is_of_run(str(run.path / name), str(run.path)) for name in [*first, "preferences.jsonl"])


def test_nothing_is_replaced_where_one_output_fails(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(run)
    first = {name: (Path(run.path) / name).read_bytes() for name in names(run)}

    def fail(_: Submission) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Submission, "finish", fail)
    with pytest.raises(RunError, match=r"submission\.csv cannot be written \(No space left on device\)"):
        scored(run, doubtful=1)
    assert {name: (Path(run.path) / name).read_bytes() for name in names(run)} == first


def test_labels_travel_with_rows_or_are_asked_for(run: RunDirectory, tmp_path: Path) -> None:
    labels = carried_labels(run)
    labelled = [n for n in range(ROWS) if n != UNLABELLED]
    assert labels.ids.to_pylist() == [f"id{n}" for n in labelled]
    assert labels.classes.tolist() == [n % 3 for n in labelled]
    scored(run)
    evaluate.main(["--run", str(run.path)])
    counts = json.loads((Path(run.path) / "evaluation" / "evaluation.json").read_text())["counts"]
    assert (counts["labels"], counts["judged"], counts["rejected"]) == (ROWS - 1, ROWS - 3, 2)
    bare = tmp_path / "bare"
    bare.mkdir()
    kept = ("id", "prompt", "response_a", "response_b")
    other = make_run(bare, [{name: record[name] for name in kept} for record in RECORDS])
    scored(other)
    with pytest.raises(UsageError, match="carry no labels; give a file of labels"):
        evaluate.main(["--run", str(other.path)])
    assert "label" not in pq.read_schema(other.score_table).names
    with pytest.raises(RunError, match="rewardbench needs rows with labels"):
        scored(other, preferences={"format": "rewardbench"})
    scored(other, preferences={"format": "trl", "margin": 0, "most_tie": 1})
    assert "agreement" not in lines(other.preferences("jsonl"))[0]
