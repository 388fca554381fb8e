"""Outputs after a kill in the middle of the join, without labels, with odd ids, and in the hands of TRL."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lmsys_ray.cli import calibrate
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.evaluation.carried_labels import carried_labels
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring import job, preflight
from tests.scoring.test_outputs import RECORDS, ROWS, lines, make_run, no_ray, scored, settings_in

LABELS = ("winner_model_a", "winner_model_b", "winner_tie")
ALL: dict[str, Any] = {"preferences": {"format": "trl", "margin": 0, "most_tie": 1}, "doubtful_texts": True}
FILES = ("submission.csv", "scores.parquet", "preferences.jsonl", "doubtful.jsonl", "rejects.jsonl")

DIES = """
import json, os, signal, sys
from pathlib import Path
from lmsys_ray.ensemble.exports.doubtful import Doubtful
from lmsys_ray.scoring import job
from tests.scoring.test_outputs import no_ray, scored, RunDirectory

run, place, outputs = RunDirectory(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
add, replace, replaced = Doubtful.add, os.replace, []

def adds(self, joined):
    if place == "join" and joined.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, joined)

def replaces(aside, path):
    replaced.append(Path(path).name)
    if place == "renaming" and "scores.parquet" in replaced:  # some are renamed, the submission is not
        os.kill(os.getpid(), signal.SIGKILL)
    replace(aside, path)

job.ray_cluster, Doubtful.add, os.replace = no_ray, adds, replaces
scored(run, **outputs)
"""


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ray_cluster", no_ray)


def changed(**values: Any) -> list[dict[str, Any]]:
    return [{**record, **values} for record in RECORDS]


def contents(run: RunDirectory, names: Iterable[str] = FILES) -> dict[str, bytes]:
    return {name: (Path(run.path) / name).read_bytes() for name in names}


@pytest.mark.parametrize("place", ["join", "renaming"])
def test_a_start_that_is_killed_in_the_join_leaves_nothing_half_and_the_next_makes_the_same(
    tmp_path: Path, place: str
) -> None:
    run = make_run(tmp_path)
    shutil.copytree(run.path, tmp_path / "before")
    scored(run, **ALL)
    whole = contents(run)
    shutil.rmtree(run.path)
    shutil.copytree(tmp_path / "before", run.path)
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(run.path), place, json.dumps(ALL)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = {name for name in FILES[:-1] if (Path(run.path) / name).exists()}
    assert there == (set() if place == "join" else {"doubtful.jsonl", "preferences.jsonl"})
    assert contents(run, there) == {name: whole[name] for name in there}
    scored(run, **ALL)
    assert contents(run) == whole
    assert not list(Path(run.path).glob(".*"))


def test_ids_that_csv_must_quote_are_the_same_everywhere(tmp_path: Path) -> None:
    odd = {f"id{n}": f'=a "{n}", \u2028é' if n % 2 else f"{n}\t,'" for n in range(ROWS)}
    run = make_run(tmp_path, [{**record, "id": odd[record["id"]]} for record in RECORDS])
    scored(run, **ALL)
    assert pq.read_table(run.score_table)["id"].to_pylist() == list(odd.values())
    with (Path(run.path) / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == list(odd.values())
    for path in ("preferences.jsonl", "doubtful.jsonl"):
        found = [json.loads(line)["id"] for line in (Path(run.path) / path).open(encoding="utf-8", newline="\n")]
        assert len(found) > 10
        assert set(found) <= set(odd.values())


def test_a_label_that_nobody_gave_is_null_and_cannot_be_doubted(tmp_path: Path) -> None:
    run = make_run(tmp_path, changed(**dict.fromkeys(LABELS)))
    scored(run, **ALL)
    assert {record["agreement"] for record in lines(run.preferences("jsonl"))} == {None}
    doubtful = lines(run.doubtful)
    assert {(record["label"], record["p_label"]) for record in doubtful} == {(None, None)}
    assert {kind for record in doubtful for kind in record["reasons"]} == {"disagreement", "uncertainty"}
    assert pq.read_table(run.score_table)["label"].null_count == ROWS
    for told in (lambda: carried_labels(run), lambda: calibrate.main(["--run", str(run.path)])):
        with pytest.raises(UsageError, match="carry no labels; give a file of labels"):
            told()
    before = contents(run)
    with pytest.raises(RunError, match=r"format = rewardbench needs rows with labels, of which .*run has none"):
        scored(run, preferences={"format": "rewardbench"})
    assert contents(run) == before


def test_a_format_that_needs_labels_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    kept = ("id", "prompt", "response_a", "response_b")
    records = [{name: record[name] for name in kept} for record in RECORDS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UsageError, match="rewardbench needs rows with labels, of which the input has none"):
        preflight.check(settings_in(tmp_path, preferences={"format": "rewardbench"}))
    assert preflight.check(settings_in(tmp_path, preferences={"format": "argilla"}))


def test_sources_travel_with_labels(tmp_path: Path) -> None:
    records = [{**record, "source": ("web", "books")[n % 2]} for n, record in enumerate(RECORDS)]
    run = make_run(tmp_path, records)
    labels = carried_labels(run)
    sources = {record["id"]: record["source"] for record in reversed(records)}
    assert labels.sources == [sources[name] for name in labels.ids.to_pylist()]


def chat() -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return tokenizer


def written(messages: list[dict[str, str]]) -> str:
    return "".join(f"<{message['role']}>{message['content']}</>" for message in messages)


def test_trl_writes_a_chat_of_any_length_by_a_template(tmp_path: Path) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    run = make_run(tmp_path)
    scored(run, preferences={"format": "trl_conversational", "margin": 0, "most_tie": 1})
    found = lines(run.preferences("jsonl"))
    assert max(len(record["prompt"]) + len(record["chosen"]) for record in found) == 4
    for record in found:
        texts = data_utils.maybe_apply_chat_template(data_utils.maybe_extract_prompt(dict(record)), chat())
        assert texts["prompt"].startswith(written(record["prompt"]) + "<assistant>")
        for side in ("chosen", "rejected"):
            assert texts["prompt"] + texts[side] == written(record["prompt"] + record[side])


def test_trl_leaves_plain_texts_as_they_are(tmp_path: Path) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    run = make_run(tmp_path)
    scored(run, **ALL)
    for record in lines(run.preferences("jsonl")):
        assert data_utils.maybe_apply_chat_template(data_utils.maybe_extract_prompt(dict(record)), chat()) == record
