"""Files belong to one run: what was made for another, or for another place, counts as damaged and is made again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from lmsys_ray.errors import RunError
from lmsys_ray.members.registry import kind_named
from lmsys_ray.run_directory.formats import FORMAT
from lmsys_ray.run_directory.tables import read_table, write_table
from lmsys_ray.scoring import fingerprint
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job, write_rows


def files(folder: Path) -> dict[str, bytes]:
    """What a run left, but for the records of its starts."""
    run = folder / "run"
    kept = [run / "submission.csv", run / "rejects.jsonl", *run.glob("shards/*"), *run.glob("scores/*/*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_job(make_settings(folder))
    return folder


@pytest.fixture
def job(finished: Path, tmp_path: Path) -> tuple[Path, Settings]:
    """A copy of a finished run, its input and its artefacts elsewhere."""
    shutil.copytree(finished, tmp_path / "job")
    return tmp_path / "job", make_settings(tmp_path / "job")


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on other rows, as many."""
    folder = tmp_path_factory.mktemp("another")
    write_rows(folder / "in.csv", 40, prefix="foreign")
    run_job(make_settings(folder))
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("shards/00002.parquet", "another"),
        ("scores/judge/00002.parquet", "another"),
        ("shards/00002.parquet", "shards/00001.parquet"),
        ("scores/judge/00002.parquet", "scores/judge/00001.parquet"),
        ("scores/judge/00002.parquet", "scores/other/00002.parquet"),
    ],
)
def test_a_file_of_another_run_or_place_is_made_again(
    finished: Path, job: tuple[Path, Settings], another: Path, name: str, source: str, capsys: pytest.CaptureFixture
) -> None:
    folder, settings = job
    shutil.copy(another / name if source == "another" else folder / "run" / source, folder / "run" / name)
    run_job(settings)
    assert "it belongs to another run or place" in capsys.readouterr().out
    assert files(folder) == files(finished)


def edited(run: Path, **changes: Any) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_counts_lowered_by_hand_are_noticed(finished: Path, job: tuple[Path, Settings], capsys: Any) -> None:
    folder, settings = job
    counts = json.loads((folder / "run" / "manifest.json").read_text())["ingested"]
    edited(folder / "run", ingested={**counts, "rows": 16, "lines": 16, "shards": 2})
    report = run_job(settings)
    said = capsys.readouterr().out
    assert "manifest.json is damaged (its checksum does not match): it is made again; 15 files" in said
    assert report.ingested.as_dict() == counts
    assert report.scored == {}
    assert files(folder) == files(finished)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"format": 3}', "\x00" * 900, '{"format": 2, "ingest": [[]]}', "[" * 99_999]
)
def test_a_lost_or_damaged_manifest_is_made_again(
    finished: Path, job: tuple[Path, Settings], content: str | None, capsys: pytest.CaptureFixture
) -> None:
    folder, settings = job
    manifest = folder / "run" / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    assert run_job(settings).scored == {}
    said = capsys.readouterr().out
    assert "it is made again; 15 files of shards and scores are kept" in said
    assert said.count("manifest.json") == 1
    assert files(folder) == files(finished)


def test_a_lost_manifest_is_not_made_again_for_other_input_or_settings(job: tuple[Path, Settings]) -> None:
    folder, settings = job
    (folder / "run" / "manifest.json").write_text("")
    before = files(folder)
    with pytest.raises(RunError, match="its shards were not made from the input and settings of now") as refused:
        run_job(make_settings(folder, limit=30))
    assert "remove" not in str(refused.value)
    (folder / "judge" / "model.txt").write_text("other weights")
    with pytest.raises(RunError, match=r"the scores of members\.judge were not made from"):
        run_job(settings)
    assert files(folder) == before


def test_a_manifest_is_made_again_by_a_version_with_further_settings(
    finished: Path, job: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = job
    (folder / "run" / "manifest.json").unlink()
    later = create_model("Later", __base__=kind_named("lightgbm").settings, depth=(int, 3))
    monkeypatch.setattr(fingerprint, "class_named", lambda kind: later)
    members = {name: later.model_validate(member.model_dump()) for name, member in settings.members.items()}
    assert run_job(settings.model_copy(update={"members": members})).scored == {}
    assert files(folder) == files(finished)


def test_the_same_content_elsewhere_is_the_same_run(
    finished: Path, job: tuple[Path, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input and artefacts may be named otherwise, or lie elsewhere; so may those of an ingest that resumes."""
    folder, _ = job
    for number in (3, 4):
        (folder / "run" / "shards" / f"0000{number}.parquet").unlink()
    shutil.move(folder / "in.csv", tmp_path / "moved.csv")
    shutil.move(folder / "judge", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    settings = make_settings(folder, input="./moved.csv")
    judge = settings.members["judge"].model_copy(update={"artifacts": str(tmp_path / "moved")})
    report = run_job(settings.model_copy(update={"members": {**settings.members, "judge": judge}}))
    assert report.scored == {}
    assert files(folder) == files(finished)


def test_two_runs_on_the_same_content_make_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes((finished / "in.csv").read_bytes())
    run_job(make_settings(tmp_path))
    here, there = files(tmp_path), files(finished)
    assert {name: here[name] for name in here if name.startswith("scores")} == {
        name: there[name] for name in there if name.startswith("scores")
    }


def as_format_2(run: Path) -> None:
    """Makes a run what the versions before identities in seals left: the same rows, files named by their paths."""
    manifest = json.loads((run / "manifest.json").read_text())
    file = manifest["ingest"]["input"][0]["path"] = str(run.parent / "in.csv")
    kept = {key: manifest[key] for key in ("lmsys_ray", "ingest", "members", "ingested", "last_start")}
    (run / "manifest.json").write_text(json.dumps({"format": 2, **kept}))
    for path in [*run.glob("shards/*.parquet"), *run.glob("scores/*/*.parquet")]:
        table = read_table(path)
        told = table.schema.metadata or {}
        if b"lmsys_ray.covered" in told:
            covered = json.loads(told[b"lmsys_ray.covered"])
            covered = {"counts": covered["counts"], "file": file, **{k: covered[k] for k in covered if k != "place"}}
            table = table.replace_schema_metadata({"lmsys_ray.covered": json.dumps(covered)})
        write_table(table, path)


def test_a_run_of_format_2_goes_on_to_the_same_bytes(job: tuple[Path, Settings], tmp_path: Path) -> None:
    folder, settings = job
    as_format_2(folder / "run")
    before = files(folder)
    assert run_job(settings).scored == {}
    assert files(folder) == before
    for name in ("shards/00003.parquet", "scores/judge/00001.parquet", "scores/other/00004.parquet"):
        (folder / "run" / name).unlink()
    assert run_job(settings).scored == {"judge": 8, "other": 8}
    assert files(folder) == before
    shutil.move(folder / "in.csv", tmp_path / "moved.csv")
    (folder / "run" / "shards" / "00004.parquet").write_bytes(b"")
    run_job(make_settings(folder, input=str(tmp_path / "moved.csv")))
    assert files(folder)["submission.csv"] == before["submission.csv"]
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert (manifest["format"], "digests" in manifest) == (FORMAT, False)


def test_what_a_run_of_format_2_was_made_from_cannot_be_found_again(
    job: tuple[Path, Settings], another: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, settings = job
    as_format_2(folder / "run")
    kept = (folder / "run" / "manifest.json").read_bytes()
    edited(folder / "run", ingested={"rows": 8, "lines": 8, "rejects": 1, "unscored": 1, "shards": 1})
    assert run_job(settings).ingested.lines == 40
    assert "are not those of its shards; they are counted again" in capsys.readouterr().out
    shutil.copy(another / "shards" / "00002.parquet", folder / "run" / "shards")
    run_job(settings)
    assert "it belongs to another run or place" in capsys.readouterr().out
    (folder / "run" / "manifest.json").write_text("")
    with pytest.raises(
        RunError, match="or by a version that did not write down from what; continue with those"
    ) as refused:
        run_job(settings)
    assert "remove" not in str(refused.value)
    (folder / "run" / "manifest.json").write_bytes(kept)
    assert run_job(settings).ingested.lines == 40
