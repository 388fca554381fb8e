"""A run goes on with more rows: nothing of before is scored again, and its submission is that of a run of them all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmsys_ray.errors import UsageError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage import files as storage
from tests.local_job import make_settings, run_job, write_rows
from tests.scoring.test_run_identity import as_format_2, files


class Killed(BaseException):
    """The driver dies; unlike an error, nothing in it catches this."""


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "run" / name).read_bytes() for name in ("submission.csv", "rejects.jsonl")}


def dated(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of each shard and score."""
    paths = [*(folder / "run").glob("shards/0*"), *(folder / "run").glob("scores/*/*")]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def rows_of_shards(folder: Path) -> list[int]:
    manifest = RunDirectory(folder / "run").read_manifest()
    assert manifest
    run = RunDirectory(folder / "run", manifest.binding)
    return [run.read_shard(number).num_rows for number in run.listed_shards()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all 40 rows, of which one is a reject and another one repeats an id."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder / "in.csv", 40)
    with (folder / "in.csv").open("a") as file:
        file.write("id5,again,a,b\nlast,prompt,a,b\n")
    run_job(make_settings(folder))
    return folder


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> tuple[Path, Settings]:
    """A folder, and settings for the same input, all of it."""
    return tmp_path / "job", make_settings(tmp_path / "job", input=str(whole / "in.csv"))


def limited(settings: Settings, limit: int | None) -> Settings:
    return settings.model_copy(update={"limit": limit})


def test_a_limited_run_goes_on_to_all(whole: Path, begun: tuple[Path, Settings], capsys: Any) -> None:
    folder, settings = begun
    run_job(limited(settings, 20))
    before = dated(folder)
    assert rows_of_shards(folder) == [8, 8, 4]
    capsys.readouterr()
    report = run_job(settings)
    assert f"{folder / 'run'} held the first 20 rows; going on to all\n" in capsys.readouterr().out
    assert report.scored == {"judge": 21, "other": 21}
    assert report.ingested.rows == 42
    assert rows_of_shards(folder) == [8, 8, 4, 8, 8, 5]
    assert dated(folder).items() >= before.items()
    assert outputs(folder) == outputs(whole)
    assert run_job(settings).scored == {}


def test_it_is_extended_again_and_again(whole: Path, begun: tuple[Path, Settings]) -> None:
    folder, settings = begun
    scored = [run_job(limited(settings, limit)).scored.get("judge", 0) for limit in (3, 4, 5, 20, 30, 41, 42, None)]
    assert scored == [3, 0, 1, 15, 10, 10, 1, 0]
    assert outputs(folder) == outputs(whole)
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert manifest["format"] == 4
    assert [start["scored"].get("judge", 0) for start in manifest["starts"]] == scored


def test_fewer_rows_are_refused(begun: tuple[Path, Settings]) -> None:
    folder, settings = begun
    for limit in (20, 30):
        run_job(limited(settings, limit))
    before = files(folder)
    with pytest.raises(
        UsageError, match="with limit = 30, now it is 20; a run can be extended to more rows, but not cut"
    ):
        run_job(limited(settings, 20))
    assert files(folder) == before


@pytest.mark.parametrize("kill", [("read", 1), ("pass", 1), ("scored", 1), ("scored", 4), ("ingest", 1)])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    whole: Path, begun: tuple[Path, Settings], kill: tuple[str, int], tmp_path: Path
) -> None:
    """Killed in the limited run and in the extended one, at the same moments."""
    folder, settings = begun
    undisturbed = make_settings(tmp_path / "undisturbed", input=settings.input)
    for limit in (20, None):
        run_job(limited(undisturbed, limit))
    for limit in (20, None):
        seen: list[str] = []

        def die(place: str, seen: list[str] = seen) -> None:
            seen.append(place)
            if seen.count(kill[0]) == kill[1]:
                raise Killed

        with pytest.raises(Killed):
            run_job(limited(settings, limit), die)
        if kill[0] != "read" or limit is None:
            run_job(limited(settings, limit))
    assert outputs(folder) == outputs(whole)
    if kill[0] != "read":
        assert files(folder) == files(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "damaged",
    [
        ["shards/00001.parquet"],
        ["shards/00002.parquet"],
        ["shards/00002.parquet", "scores/judge/00002.parquet", "shards/00003.parquet"],
        ["shards/00005.parquet"],
        ["manifest.json"],
        ["shards/spans.json"],
        ["manifest.json", "shards/00002.parquet", "shards/00003.parquet"],
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_damaged_files_are_made_again(begun: tuple[Path, Settings], damaged: list[str], gone: bool) -> None:
    folder, settings = begun
    for limit in (20, None):
        run_job(limited(settings, limit))
    before = files(folder)
    for name in damaged:
        path = folder / "run" / name
        path.unlink() if gone else path.write_bytes(path.read_bytes()[:-9])
    run_job(settings)
    assert files(folder) == before


@pytest.mark.parametrize(
    "damaged", [["shards/00001.parquet"], ["shards/00002.parquet"], ["scores/other/00000.parquet"]]
)
def test_a_shard_of_before_is_damaged_when_it_is_extended(
    whole: Path, begun: tuple[Path, Settings], damaged: list[str]
) -> None:
    folder, settings = begun
    run_job(limited(settings, 20))
    before = files(folder)
    for name in damaged:
        (folder / "run" / name).write_bytes(b"PAR1")
    run_job(settings)
    now = files(folder)
    assert {name: now[name] for name in before if name.startswith(("shards/0", "scores"))} == {
        name: before[name] for name in before if name.startswith(("shards/0", "scores"))
    }
    assert outputs(folder) == outputs(whole)


def test_shards_of_another_extension_are_not_taken(begun: tuple[Path, Settings], tmp_path: Path, capsys: Any) -> None:
    """Two runs that began alike and went on otherwise."""
    folder, settings = begun
    run_job(limited(settings, 20))
    shutil.copytree(folder, tmp_path / "other")
    write_rows(tmp_path / "other" / "more.csv", 22, prefix="foreign")
    other = make_settings(tmp_path / "other", input=[*settings.input, str(tmp_path / "other" / "more.csv")])
    run_job(other)
    run_job(settings)
    before = files(folder)
    for name in ("shards/00003.parquet", "scores/judge/00004.parquet"):
        shutil.copy(tmp_path / "other" / "run" / name, folder / "run" / name)
    run_job(settings)
    assert "it belongs to another run or place" in capsys.readouterr().out
    assert files(folder) == before
    shutil.copy(tmp_path / "other" / "run" / "shards" / "spans.json", folder / "run" / "shards")
    (folder / "run" / "manifest.json").unlink()
    with pytest.raises(Exception, match="its shards were not made from the input and settings of now"):
        run_job(settings)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read a few rows at a time."""
    for module in ("csv_blocks", "windows"):
        monkeypatch.setattr(f"lmsys_ray.data.readers.{module}.BLOCK", 120)
    monkeypatch.setattr("lmsys_ray.data.readers.csv_blocks._CAREFUL_BYTES", 120)


def interrupted(settings: Settings, place: str, number: int) -> None:
    """A start that dies at the `number`th time of `place`."""
    seen: list[str] = []

    def die(at: str) -> None:
        seen.append(at)
        if seen.count(place) == number:
            raise Killed

    with pytest.raises(Killed):
        run_job(settings, die)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "moments", [[("read", 3)], [("read", 4)], [("pass", 1)], [("scored", 2)], [("read", 4), ("read", 3)]]
)
def test_an_interrupted_run_goes_on_to_more(
    whole: Path, begun: tuple[Path, Settings], moments: list[tuple[str, int]]
) -> None:
    """Without coming to the end of what it was begun for; the second time, the extension itself breaks off."""
    folder, settings = begun
    for limit, moment in zip((21, 33), moments, strict=False):
        interrupted(limited(settings, limit), *moment)
    before = dated(folder)
    run_job(settings)
    assert dated(folder).items() >= before.items()
    assert outputs(folder) == outputs(whole)
    made = files(folder)
    (folder / "run" / "manifest.json").unlink()
    for name in ("shards/00000.parquet", "shards/00001.parquet"):
        (folder / "run" / name).unlink()
    assert run_job(settings).scored == {}
    assert files(folder) == made


def test_a_trial_does_not_cut_the_rest_into_small_shards(
    whole: Path, begun: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"_SHARDS": 1, "_LEAST": 2, "_ROW_BYTES": 30}.items():
        monkeypatch.setattr(f"lmsys_ray.ingest.shard_size.{name}", value)
    folder, settings = begun
    settings = settings.model_copy(update={"shard_rows": "auto"})
    for limit in (5, None):
        run_job(limited(settings, limit))
    assert rows_of_shards(folder) == [4, 1, 32, 4]
    assert outputs(folder) == outputs(whole)
    made = files(folder)
    for name in ("manifest.json", "shards/00001.parquet", "shards/00002.parquet"):
        (folder / "run" / name).unlink()
    assert run_job(settings).scored == {}
    assert files(folder) == made


def test_a_larger_limit_that_brings_no_row_needs_no_ingest(begun: tuple[Path, Settings]) -> None:
    folder, settings = begun
    run_job(limited(settings, 60))
    before, seen = dated(folder), list[str]()
    run_job(limited(settings, 70), seen.append)
    run_job(settings, seen.append)
    assert seen == []
    assert dated(folder) == before


def test_a_run_of_format_2_is_extended(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "in.csv", tmp_path)
    settings = make_settings(tmp_path)
    run_job(limited(settings, 20))
    as_format_2(tmp_path / "run")
    before = dated(tmp_path)
    assert run_job(settings).scored == {"judge": 21, "other": 21}
    assert dated(tmp_path).items() >= before.items()
    assert outputs(tmp_path)["submission.csv"] == outputs(whole)["submission.csv"]


@pytest.mark.parametrize(("limit", "lost"), [(None, False), (None, True), (20, False), (30, False)])
def test_killed_before_the_extension_is_in_the_manifest(
    whole: Path, begun: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch, limit: int | None, lost: bool
) -> None:
    """Whether the next start extends it likewise, to another limit, or not at all."""
    folder, settings = begun
    run_job(limited(settings, 20))
    made = files(folder)
    write = storage.write_bytes

    def die(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "manifest.json":
            raise Killed
        write(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_bytes", die)
        with pytest.raises(Killed):
            run_job(settings)
    assert (folder / "run" / "shards" / "spans.json").exists()
    if lost:
        (folder / "run" / "manifest.json").unlink()
    run_job(limited(settings, limit))
    if limit == 20:
        assert files(folder) == made
    else:
        run_job(settings)
        assert outputs(folder) == outputs(whole)
