"""The page about a run: what it says, of finished and unfinished runs, and that nothing of the input is live in it."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from lmsys_ray.cli import score as score_command
from lmsys_ray.errors import DamagedError, RunError, UsageError
from lmsys_ray.report.write import write_report
from lmsys_ray.run_directory.layout import RunDirectory
from tests.local_job import make_settings, run_job, write_rows
from tests.report.synthetic import make_run

JOB = Path(__file__).parents[2] / "jobs" / "report.py"
VOID = {"meta", "link", "br", "img", "input", "hr"}
ADDRESSES = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "background"}


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def assert_inert(self) -> None:
        for tag, attributes in self.tags:
            assert tag not in {"script", "iframe", "object", "embed", "base", "link", "img", "form", "foreignobject"}
            assert not [name for name in attributes if name.startswith("on")]
            for name in ADDRESSES & attributes.keys():
                assert (attributes[name] or "").startswith("#")
            assert "url(" not in (attributes.get("style") or "")
        assert "@import" not in self.text
        assert "url(" not in re.sub(r"<bdi>.*?</bdi>", "", self.text)


def page_of(run: RunDirectory, texts: bool = False) -> Page:
    write_report(run, texts)
    return Page(run.report.read_text(encoding="utf-8"))


def test_a_finished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = page_of(run)
    page.assert_inert()
    assert "Finished: 400 rows, all with a score of their own. Its blend has a log loss of" in page.text
    for title in ("What to do next", "Time", "Against the labels", "Position bias", "Leaderboard", "Doubtful rows"):
        assert title in page.text
    assert "llama read" in page.text
    assert "raise members.llama.max_length (now 512)" in page.text
    assert "2 shards, 76% busy" in page.text
    board = json.loads((run.path / "leaderboard.json").read_text())
    assert f"{board['models'][0]['strength']:.0f}" in page.text
    assert "lorem ipsum" not in page.text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        if tag == "svg" and attributes.get("aria-hidden") is None:
            assert attributes["role"] == "img"
            assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
        assert tag != "th" or attributes.get("scope") in ("col", "row")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_report(run)
    first = run.report.read_bytes()
    write_report(run)
    assert run.report.read_bytes() == first


def test_texts_only_where_they_are_asked_for(tmp_path: Path) -> None:
    assert "lorem ipsum" in page_of(make_run(tmp_path / "run"), texts=True).text
    assert "lorem ipsum" in page_of(make_run(tmp_path / "set", report={"texts": True})).text


def test_no_labels_one_member(tmp_path: Path) -> None:
    members = {"only": {"kind": "lightgbm", "artifacts": "models/lightgbm"}}
    page = page_of(make_run(tmp_path / "run", members=members, carried=()))
    page.assert_inert()
    assert "No row has a label" in page.text
    for title in ("Against the labels", "Position bias", "Leaderboard", "Agreement of members", "Tokens of a row"):
        assert title not in page.text


@pytest.mark.parametrize(
    ("exit_code", "said"), [(None, "This run died"), (143, "This run was stopped"), (1, "This run failed")]
)
def test_an_unfinished_run_says_so_and_shows_what_there_is(tmp_path: Path, exit_code: int | None, said: str) -> None:
    run = make_run(tmp_path / "run", scored={"llama": 2, "lightgbm": 4}, exit_code=exit_code)
    page = page_of(run)
    page.assert_inert()
    assert said in page.text
    assert "llama 2 of 4 shards" in page.text
    assert "Start the same command again" in page.text
    assert "the 200 rows that lightgbm and llama scored" in page.text
    assert "Against the labels" in page.text


def test_a_member_that_has_not_begun_is_not_in_any_blend(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scored={"lightgbm": 3}, exit_code=None)
    page = page_of(run)
    assert "llama 0 of 4 shards" in page.text
    assert "blend in use" not in page.text
    assert "Probabilities of lightgbm" in page.text


def test_a_run_without_scores(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", scored={}, exit_code=None))
    page.assert_inert()
    assert "Unfinished. This run died" in page.text
    assert "Doubtful rows" not in page.text


HOSTILE = "</style></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}\u202eabc\x00\x1b[31m😀 شكرا"


def hostile_run(path: Path) -> RunDirectory:
    """A run whose ids, names, sources and texts, and whose manifest, are made to break out of a page."""
    run = make_run(path, rows=200, shard_rows=100)
    large = json.dumps([HOSTILE, "<b>" * 350_000])
    for number in range(2):
        shard = run.read_shard(number)
        values = shard.to_pydict()
        for name in ("id", "model_a", "model_b", "source", "language"):
            values[name] = [f"{HOSTILE}{value}" for value in values[name]]
        for name in ("prompt", "response_a", "response_b"):
            values[name] = [large for _ in values[name]] if number == 0 else values[name]
        run.write_shard(number, pa.table(values, schema=shard.schema))
    run.rejects.write_text(json.dumps({"id": "x", "reason": HOSTILE}) + "\n")
    manifest = run.read_manifest()
    assert manifest
    manifest.ingest.input[0].path = HOSTILE
    manifest.starts[0] |= {"host": HOSTILE, "error": HOSTILE, "exit": 0}
    manifest.members["llama"]["adapter"] = HOSTILE
    assert manifest.ingested
    manifest.ingested.warnings, manifest.ingested.warned = 1, [HOSTILE]
    run.write_manifest(manifest)
    board = json.loads((run.path / "leaderboard.json").read_text())
    for model in board["models"]:
        model["model"] = HOSTILE + model["model"]
    (run.path / "leaderboard.json").write_text(json.dumps(board))
    return run


def test_a_hostile_run_is_inert(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "run")
    page = page_of(run, texts=True)
    page.assert_inert()
    written = run.report.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", written.replace("\n", ""))
    assert "49abc" not in page.text
    assert "شكرا" in page.text
    assert "😀" in page.text
    assert "\\u202eabc" in page.text
    assert written.count("<script") == 0
    assert len(written) < 2_000_000  # of turns only the beginning is shown


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run directory"):
        write_report(RunDirectory(tmp_path / "nowhere"))
    run = make_run(tmp_path / "run")
    (run.path / "leaderboard.json").write_text('{"models": [{"rank": "x"}]}')
    with pytest.raises(UsageError, match=r"leaderboard\.json is not as a run writes it"):
        write_report(run)
    (run.path / "leaderboard.json").unlink()
    run.score("llama", 1).write_bytes(b"damaged")
    with pytest.raises(DamagedError, match=r"00001\.parquet is damaged"):
        write_report(run)
    assert not run.report.exists()


def test_rows_that_a_member_could_not_score_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    scores = run.read_scores("llama", 0)
    reasons = pa.array(["too long"] * 5 + [None] * 95)
    run.write_scores("llama", 0, scores.append_column("reason", reasons))
    assert "scored by all members 395" in page_of(run).text


def test_a_job_s_own_run(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, rows=40)
    run_job(settings)
    run = RunDirectory(settings.output)
    page = page_of(run)
    page.assert_inert()
    assert "39 scored" not in page.text
    assert "scored by all members 39" in page.text
    assert "Look at rejects.jsonl: 1 row," in page.text
    manifest = run.read_manifest()
    assert manifest
    replicas = manifest.starts[-1]["replicas"]["judge"]
    assert [replica["shards"] for replica in replicas] == [5]
    assert 0 <= replicas[0]["began"] <= replicas[0]["ended"]


def test_a_run_of_rejects_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.csv", 9, bad=range(9))
    settings = make_settings(tmp_path)
    run_job(settings)
    page = page_of(RunDirectory(settings.output))
    page.assert_inert()
    assert "Finished: 9 rows, 9 rejects." in page.text


def test_a_later_start_that_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", exit_code=1)
    run.submission.write_text("of an earlier start")
    assert "This run failed (exit code 1)" in page_of(run).text
    assert "The outputs are those of an earlier start." in page_of(run).text


def test_long_cells_are_shown_in_part(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=8, shard_rows=8)
    shard = run.read_shard(0)
    long = pa.array([json.dumps(["x" * 5000] + [f"turn {n}" for n in range(30)])] * 8, pa.large_string())
    run.write_shard(0, shard.set_column(shard.schema.get_field_index("prompt"), "prompt", long))
    text = page_of(run, texts=True).text
    assert "x" * 1500 + " …" in text
    assert "x" * 1501 not in text
    assert "turn 18" in text
    assert "turn 19 " not in text
    assert "11 turns more." in text


def test_score_ends_with_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(tmp_path)
    report = run_job(settings)
    run = RunDirectory(settings.output)
    monkeypatch.setattr("lmsys_ray.scoring.preflight.check", lambda settings, say: settings)
    monkeypatch.setattr("lmsys_ray.scoring.job.score", lambda settings, display: report)
    command = ["--config", str(run.path / "settings.yaml")]
    assert score_command.main(command) == 0
    assert capsys.readouterr().out.endswith(f"report: {run.report}\n")
    assert run.report.exists()
    assert score_command.main([*command, "--set", "report.enabled=false"]) == 0
    assert "report:" not in capsys.readouterr().out
    assert not run.report.exists()


def test_a_report_that_fails_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr("lmsys_ray.report.write.write_report", fail)
    score_command._write_report(RunDirectory(tmp_path))
    assert "warning: there is no new report: the disk is full" in capsys.readouterr().out


def test_the_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    told = subprocess.run([sys.executable, JOB, str(run.path), "--texts"], capture_output=True, check=True, text=True)
    assert told.stdout == f"report: {run.report}\n"
    assert "lorem ipsum" in run.report.read_text()
    page, other = run.report.read_text(), tmp_path / "made" / "of it.html"
    run.report.unlink()
    command = [sys.executable, JOB, str(run.path), "--texts", "--output", str(other)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == f"report: {other}\n"
    assert other.read_text() == page
    assert not run.report.exists()
    refused = subprocess.run([sys.executable, JOB, str(tmp_path)], capture_output=True, check=False, text=True)
    assert refused.returncode == 2
    assert "is not a run directory" in refused.stderr
