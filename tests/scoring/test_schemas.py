"""Runs on other schemas than the contest's: what is told, what is kept, and that they go on."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray.data.schemas.reading import PLAIN, row_names
from lmsys_ray.data.schemas.recognise import Recognised
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring import preflight
from lmsys_ray.scoring.settings import Settings
from tests.local_job import make_settings, run_job


def arena(path: Path, rows: int, groups: int = 3) -> Path:
    """Writes conversations as the Arena's; in row 5 the sides answer different questions."""
    records = [
        {
            "question_id": f"q{n}",
            "model_a": "kite",
            "model_b": "moss" if n % 3 else "fern",
            "winner": ("model_a", "model_b", "tie", "tie (bothbad)")[n % 4],
            "conversation_a": [{"role": "user", "content": f"p {n}"}, {"role": "assistant", "content": f"a {n}"}],
            "conversation_b": [
                {"role": "user", "content": f"p {n}" if n != 5 else "another"},
                {"role": "assistant", "content": f"b {n}"},
            ],
            "language": "English",
        }
        for n in range(rows)
    ]
    table = pa.Table.from_pylist(records)
    pq.write_table(table, path, row_group_size=-(-rows // groups), compression="zstd")
    return path


def shards(run: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(run) / "shards").glob("*.parquet"))}


def bound(path: str) -> RunDirectory:
    manifest = RunDirectory(path).read_manifest()
    assert manifest
    return RunDirectory(path, manifest.binding)


class Killed(BaseException):
    pass


def test_labels_and_models_are_in_the_shards_and_a_killed_ingest_makes_the_same(tmp_path: Path) -> None:
    path = arena(tmp_path / "in.parquet", 60)
    settings = make_settings(tmp_path, input=str(path))
    run_job(settings)
    run = bound(settings.output)
    rows = [row for number in range(len(shards(settings.output))) for row in run.read_shard(number).to_pylist()]
    assert [row["label"] for row in rows] == [(0, 1, 2, 2)[n % 4] if n != 5 else None for n in range(60)]
    assert [row["model_b"] for row in rows[:3]] == ["fern", "moss", "moss"]
    assert run.carried() == ["label", "model_a", "model_b", "language"]
    [reject] = map(json.loads, (Path(settings.output) / "rejects.jsonl").read_text().splitlines())
    assert (reject["id"], reject["row"]) == ("q5", 6)
    assert "different turns of the user" in reject["reason"]

    for kill in range(1, 4):
        again = settings.model_copy(update={"output": str(tmp_path / f"again {kill}")})
        seen = []

        def die(place: str, seen: list[str] = seen, kill: int = kill) -> None:
            seen.append(place)
            if seen.count("read") == kill:
                raise Killed

        with pytest.raises(Killed):
            run_job(again, die)
        run_job(again)
        assert shards(again.output) == shards(settings.output)
        assert (tmp_path / f"again {kill}" / "submission.csv").read_bytes() == (
            Path(settings.output) / "submission.csv"
        ).read_bytes()


def test_a_run_is_of_one_reading(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p {n}", "chosen": "c", "rejected": "r"}) + "\n" for n in range(9)))
    settings = make_settings(tmp_path, input=str(path))
    run_job(settings)
    for change in ({"id": "hash"}, {"columns": {"chosen": "rejected", "rejected": "chosen"}}):
        with pytest.raises(RunError, match="was made with reading = "):
            run_job(settings.model_copy(update=change))
    moved = path.rename(tmp_path / "moved.jsonl")
    with pytest.raises(RunError, match="was made with names = "):
        run_job(settings.model_copy(update={"input": [str(moved)]}))
    (tmp_path / "folder").mkdir()
    moved = moved.rename(tmp_path / "folder" / "in.jsonl")
    run_job(settings.model_copy(update={"input": [str(moved)]}))


def test_a_run_of_before_there_were_schemas_goes_on_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.csv"
    header = "id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
    path.write_text(header + "".join(f"{n},p {n},a,b,1,0,0\n" for n in range(40)))
    settings = make_settings(tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr("lmsys_ray.scoring.fingerprint.recognised", lambda *_: Recognised(PLAIN, []))
        with pytest.raises(Killed):
            run_job(settings, _killed_at("pass"))
    run = RunDirectory(settings.output)
    manifest = run.read_manifest()
    assert manifest
    before = shards(settings.output)
    for name in ("reading", "names"):
        manifest.ingest.__pydantic_fields_set__.discard(name)
    run.shard(3).unlink()
    manifest.ingested = None
    run.write_manifest(manifest)
    for _ in range(2):
        run_job(settings)
        assert shards(settings.output) == before
    assert bound(settings.output).carried() == []


def _killed_at(moment: str):
    def die(place: str) -> None:
        if place == moment:
            raise Killed

    return die


def test_preflight_tells_how_the_input_is_read_and_checks_every_file(tmp_path: Path) -> None:
    files = [str(arena(tmp_path / "a.parquet", 3)), str(tmp_path / "b.parquet")]
    pq.write_table(pa.table({"id": ["x"], "prompt": ["p"], "response_a": ["a"], "response_b": ["b"]}), files[1])
    settings = Settings.model_validate({**make_settings(tmp_path).model_dump(), "input": files})
    with pytest.raises(UsageError, match=r"b.parquet has no column conversation_a, conversation_b; it has id, prompt"):
        preflight.check(settings)


def test_names_of_files_in_ids_tell_them_apart_and_stay_when_all_move() -> None:
    assert row_names(["/x/y/a.csv"]) == ["a.csv"]
    assert row_names(["/x/y/a.csv", "s3://z/b.csv"]) == ["a.csv", "b.csv"]
    assert row_names(["/x/y/1/a.csv", "/x/y/2/a.csv", "/x/y/2/b.csv"]) == ["1/a.csv", "2/a.csv", "2/b.csv"]
    assert row_names(["s3://b/1/a.csv", "s3://b/2/a.csv"]) == ["1/a.csv", "2/a.csv"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"schema": "arenas"}, "contest"),
        ({"columns": {"promt": "x"}}, "of which promt is none"),
        ({"id": "none"}, "column"),
        ({"pairs": "some"}, "adjacent"),
    ],
)
def test_settings_that_are_not_accepted(tmp_path: Path, values: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings.model_validate({**make_settings(tmp_path).model_dump(), **values})
