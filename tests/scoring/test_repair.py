"""Whatever lies in a run directory: it is made again, or a sentence says what keeps it from being so."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.errors import RunError, Stopped
from lmsys_ray.members.protocol import Scores
from lmsys_ray.report.facts import read_facts
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.scoring.score_tables import score_table
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job, write_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_rows(folder / "in.csv", 40, bad=(3, 17, 39))
    run_job(make_settings(folder))
    return folder


@pytest.fixture
def settings(finished: Path, tmp_path: Path) -> Settings:
    """Settings of a copy of a finished run, on the same input."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return make_settings(finished, output=str(tmp_path / "run"))


def files(run: Path) -> dict[str, bytes]:
    kept = [run / "submission.csv", run / "rejects.jsonl", *run.glob("shards/*"), *run.glob("scores/*/*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in kept}


def bound(run: Path) -> RunDirectory:
    return RunDirectory(run, Manifest.from_bytes((run / "manifest.json").read_bytes()).binding)


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        b"",
        b"\x00\xff\n",
        b"[" * 99_999,
        b"[]\n" * 3,
        b'{"reason": 3}\n',
        b'{"reason": "x", "member": "m"}\n',
    ],
)
def test_a_lost_list_of_rejects_is_made_again(
    tmp_path: Path, settings: Settings, garbage: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    before = files(tmp_path / "run")
    path = tmp_path / "run" / "rejects.jsonl"
    path.unlink() if garbage is None else path.write_bytes(garbage)
    assert run_job(settings).scored == {}
    assert f"{path} was gone or damaged; it is made again" in capsys.readouterr().out
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("garbage", [False, True])
def test_lost_parts_of_the_rejects_are_made_again_with_it(
    tmp_path: Path, settings: Settings, number: int, garbage: bool
) -> None:
    before = files(tmp_path / "run")
    part = sorted(tmp_path.glob("run/shards/rejects-*"))[number]
    part.write_bytes(b"x" * part.stat().st_size) if garbage else part.unlink()
    (tmp_path / "run" / "rejects.jsonl").unlink()
    assert run_job(settings).scored == {}
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("part", [False, True])
def test_another_reason_in_the_rejects_is_noticed_by_their_digest(
    tmp_path: Path, settings: Settings, part: bool
) -> None:
    run = tmp_path / "run"
    before = files(run)
    (run / "rejects.jsonl").unlink() if part else None
    path = sorted(run.glob("shards/rejects-*"))[1] if part else run / "rejects.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"not valid", b"all valid"))
    assert path.read_bytes() != whole
    assert run_job(settings).scored == {}
    assert files(run) == before


def test_parts_of_rejects_of_before_format_4_have_no_digest(tmp_path: Path, settings: Settings) -> None:
    run = tmp_path / "run"
    expected = (run / "rejects.jsonl").read_bytes()
    for path in sorted(run.glob("shards/rejects-*")):
        path.rename(path.with_name(path.name.rpartition("-")[0] + ".jsonl"))
    (run / "rejects.jsonl").unlink()
    assert run_job(settings).scored == {}
    assert (run / "rejects.jsonl").read_bytes() == expected


@pytest.mark.parametrize("garbage", [b"{", b"[]\n", b"{}\n", b"\xff\n", None])
def test_a_damaged_list_of_rejects_is_a_sentence_of_the_report(
    tmp_path: Path, settings: Settings, garbage: bytes | None
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.rejects.unlink()
    run.rejects.mkdir() if garbage is None else run.rejects.write_bytes(garbage)
    with pytest.raises(RunError, match=r"rejects\.jsonl (is damaged; start the|cannot be read \(Is a dir)"):
        read_facts(run)


@pytest.mark.parametrize("change", ["rows", "nan", "sum"])
def test_scores_that_cannot_be_joined_are_made_again(
    tmp_path: Path, settings: Settings, change: str, capsys: pytest.CaptureFixture
) -> None:
    """Whole files, sealed as they should be."""
    before, run = files(tmp_path / "run"), bound(tmp_path / "run")
    scores = run.read_scores("judge", 1)
    values = np.column_stack([scores[name] for name in ("a", "b", "tie")])
    if change == "rows":
        scores, values = scores.slice(1), values[1:]
    else:
        values[2] = np.nan if change == "nan" else values[2] / 2
    run.write_scores("judge", 1, score_table(scores.select(["row"])["row"], Scores(values), swap=False))
    assert run_job(settings).scored == {"judge": 8}
    expected = "does not hold the rows of its shard" if change == "rows" else "holds values that are not probabilities"
    assert f"scores/judge/00001.parquet {expected}" in capsys.readouterr().out
    assert files(tmp_path / "run") == before


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("here I am")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "deed"),
    [
        ("shards", a_file),
        ("scores", a_file),
        ("scores/judge", a_file),
        ("manifest.json", a_folder),
        ("rejects.jsonl", a_folder),
        ("submission.csv", a_folder),
        ("settings.yaml", a_folder),
        ("shards/00001.parquet", a_folder),
        ("scores/other/00001.parquet", a_folder),
    ],
)
def test_a_thing_of_another_kind_is_one_sentence(
    tmp_path: Path, settings: Settings, name: str, deed: Callable[[Path], None]
) -> None:
    deed(tmp_path / "run" / name)
    with pytest.raises(
        RunError, match=rf"{name.rpartition('/')[0]}.* cannot be (read|written|removed) \((Is|a file|Not)"
    ) as refused:
        run_job(settings)
    assert "remove " not in str(refused.value), "nobody should be told to lose it"


WRONG = {
    "ingest": [[], "x", {"input": "in.csv"}, {"input": [{"path": 3}], "limit": "all", "cells": [], "shard_rows": 0}],
    "members": [[], {"judge": 3}, {"judge": None}],
    "ingested": [3, {"rows": "many"}, {"rows": 1, "lines": [[]], "rejects": {}, "unscored": 1, "shards": 1}],
    "starts": [{}, [3]],
    "digests": [3, {"ingest": 1, "members": []}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in WRONG for value in WRONG[key]])
@pytest.mark.parametrize("version", [2, 3])
def test_a_manifest_of_wrong_values_is_never_a_traceback(
    tmp_path: Path, settings: Settings, key: str, value: object, version: int, capsys: pytest.CaptureFixture
) -> None:
    """With format 2, which has no checksum, it gets as far as its values."""
    path, before = tmp_path / "run" / "manifest.json", files(tmp_path / "run")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value, "format": version}))
    assert run_job(settings).scored == {}
    assert "manifest.json is damaged (" in capsys.readouterr().out
    assert files(tmp_path / "run") == before


def test_each_start_stays_in_the_history(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)

    def fails(place: str) -> None:
        if place == "pass":
            raise RunError("the sky fell")

    def stops(place: str) -> None:
        if place == "scored":
            raise Stopped(signal.SIGTERM)

    for hook, error in ((fails, RunError), (stops, Stopped)):
        with pytest.raises(error):
            run_job(settings, hook)
    run_job(settings)
    whole = json.loads((tmp_path / "run" / "manifest.json").read_text())["last_start"]
    run_job(settings)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    failed, stopped, finished, idle = manifest["starts"]
    assert [start["exit"] for start in manifest["starts"]] == [1, 143, 0, 0]
    assert (failed["error"], failed["ingested"], failed["scored"]) == ("the sky fell", 40, {})
    assert (stopped["error"], stopped["ingested"]) == ("Stopped", 0)
    assert finished["seconds"] == whole["seconds"]
    assert finished["scored"] == whole["scored"] != {}
    assert finished["nodes"].keys() == {"judge", "other"}
    assert (idle["scored"], idle["nodes"], idle["deaths"]) == ({}, {}, {})
    assert manifest["last_start"]["seconds"] == idle["seconds"]


def test_a_killed_start_is_in_the_history_without_an_end(tmp_path: Path) -> None:
    settings, seen = make_settings(tmp_path), []
    run_job(settings, lambda place: seen.append(json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]))
    assert all(starts[-1]["exit"] is None for starts in seen)


def test_a_directory_in_which_nothing_was_made_may_begin_anew(tmp_path: Path) -> None:
    def fails(place: str) -> None:
        raise RunError("no cluster")

    with pytest.raises(RunError, match="no cluster"):
        run_job(make_settings(tmp_path), fails)
    write_rows(tmp_path / "in.csv", 16, prefix="mended")
    assert run_job(make_settings(tmp_path)).ingested.lines == 16
    starts = json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]
    assert [start["exit"] for start in starts] == [1, 0]
