"""Which files an input names: globs, odd names, what a run wrote itself, and names that lead nowhere."""

import json
import os
from pathlib import Path

import fsspec
import pytest

from lmsys_ray.config.layering import layer_settings
from lmsys_ray.data.readers import expand_inputs, read_rows
from lmsys_ray.errors import UsageError
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.preflight import check
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import matches

CONTENT = "id,prompt,response_a,response_b\n1,a,b,c\n,a,b,c\n"
MEMBERS = {"trees": {"kind": "lightgbm", "artifacts": "packaged:lightgbm"}}


def put(path: Path, content: str = CONTENT) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize("folder", ["x [1]", "x [1]/[a-z] ?", "ü 日本 *", "plain"])
def test_globs_below_folders_of_any_name(tmp_path: Path, folder: str) -> None:
    files = [put(tmp_path / folder / name) for name in ("a b.csv", "é 😀.csv", "[x].csv")]
    put(tmp_path / "x 1" / "other.csv")
    assert expand_inputs([str(tmp_path / folder / "*.csv")]) == sorted(files)
    assert expand_inputs([files[2]]) == [files[2]]


def test_a_class_of_characters_still_is_one(tmp_path: Path) -> None:
    files = [put(tmp_path / f"x {number}" / "a.csv") for number in range(3)]
    assert expand_inputs([str(tmp_path / "x [12]" / "*.csv")]) == files[1:]


def test_a_literal_folder_of_a_store() -> None:
    store = fsspec.filesystem("memory")
    for folder in ("x [1]", "x 1", "y 1"):
        store.pipe_file(f"/test_inputs/{folder}/a.csv", b"")
    assert matches("memory://test_inputs/x [1]/*.csv") == ["memory:///test_inputs/x [1]/a.csv"]
    assert matches("memory://test_inputs/y [1]/*.csv") == ["memory:///test_inputs/y 1/a.csv"]


def test_what_a_run_wrote_is_none_of_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [put(Path("d/a.csv")), put(Path("d/run/mine.csv"))]
    own = ("submission.csv", "shards/00000.parquet", "scores/llama/00000.parquet", "rejects.jsonl", "evaluation/x.csv")
    for name in own:
        put(Path("d/run") / name, "no input")
    for output in ("d/run", str(tmp_path / "d/run"), "./d/../d/run/"):
        assert expand_inputs(["d/**/*.csv"], output) == files
        assert expand_inputs(["d/**/*.csv", "d/run/*.csv"], output) == [*files, files[1]]
    with pytest.raises(UsageError, match=r"no file in d/run/shards/\*"):
        expand_inputs(["d/run/shards/*"], "d/run")


@pytest.mark.parametrize("output_exists", [False, True])
def test_the_next_start_has_the_same_input(tmp_path: Path, output_exists: bool) -> None:
    put(tmp_path / "a.csv")
    if output_exists:
        put(tmp_path / "run" / "submission.csv", "id,winner_model_a,winner_model_b,winner_tie\n")
    values = {"input": [str(tmp_path / "**" / "*.csv")], "output": str(tmp_path / "run"), "members": MEMBERS}
    check(Settings.model_validate(values))


def test_links_that_lead_nowhere_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    os.mkfifo(tmp_path / "c.csv")
    for name, sentence in {
        "[ab].csv": r"b\.csv is a broken link; mend it or leave it out",
        "b.csv": r"b\.csv is a broken link",
        "*c.csv": r"c\.csv is not a file; mend it",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            expand_inputs([str(tmp_path / name)])
    (tmp_path / "b.csv").unlink()
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    assert len(expand_inputs([str(tmp_path / "[ab].csv")])) == 2


@pytest.mark.parametrize("name", ["", " "])
def test_names_of_nothing_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"input: ' ?' is not a name; give a path or a glob"):
        expand_inputs([name])
    settings = Settings(input=[put(tmp_path / "a.csv")], output=name, members=MEMBERS)
    with pytest.raises(UsageError, match=r"output = ' ?' is not a name; name a directory"):
        check(settings)


def test_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file, home = put(tmp_path / "in" / "a.csv"), str(tmp_path)
    put(tmp_path / "run.yaml", "input: ~/in/*.csv\nlimit: 7\n")
    llama = {"kind": "llama", "model": "~/m", "adapter": "~/a"}
    members = {"llama": llama, "trees": {"kind": "lightgbm", "artifacts": "~/t"}}
    values = layer_settings(None, ["~/run.yaml"], {}, []) | {"output": "~/run", "members": members}
    settings = Settings.model_validate(values)
    assert settings.limit == 7
    assert expand_inputs(settings.input) == [file]
    judge, trees = settings.members["llama"], settings.members["trees"]
    found = [settings.output, judge.model, judge.adapter, trees.artifacts]
    assert found == [f"{home}/{name}" for name in ("run", "m", "a", "t")]


def test_a_reject_of_a_file_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv")
    put(Path(path))
    assert expand_inputs([str(tmp_path / "*.csv")]) == [path]
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    rows = ((path, table) for table in read_rows(path))
    ingest(rows, run, 10, fail_on_reject=False, on_rows=lambda _: None)
    assert json.loads(run.rejects.read_text("utf-8"))["file"] == path
