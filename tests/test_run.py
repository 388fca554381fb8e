"""The run directory: what a run is made from, and which of its shards are missing."""

from pathlib import Path

import pytest

from lmsys_ray.config import Settings
from lmsys_ray.errors import RunError
from lmsys_ray.run import RunDirectory, check_same_run, identity, written_whole


def settings(folder: Path, **member: object) -> Settings:
    (folder / "in.csv").write_text("id,prompt,response_a,response_b\n")
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    llama = {"kind": "llama", "model": str(model), **member}
    return Settings.model_validate(
        {"input": str(folder / "in.csv"), "output": str(folder / "run"), "members": {"llama": llama}}
    )


def test_what_moves_no_probability_may_change(tmp_path: Path) -> None:
    before = identity(settings(tmp_path))
    (tmp_path / "model" / "README.md").write_text("a card")
    now = identity(settings(tmp_path, weight=3, replicas=2, batch_tokens=64))
    assert now == before


@pytest.mark.parametrize(
    "change",
    [{"max_length": 64}, {"template": "labelled"}, {"quantization": "nf4"}, {"swap": True}, {"text": "notebook"}],
)
def test_what_moves_probabilities_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    before = identity(settings(tmp_path))
    with pytest.raises(RunError, match=f"members.llama.{next(iter(change))} = "):
        check_same_run(before, identity(settings(tmp_path, **change)), tmp_path)


def test_another_model_under_the_same_path_is_noticed(tmp_path: Path) -> None:
    before = identity(settings(tmp_path))
    now_settings = settings(tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    with pytest.raises(RunError, match="model_content"):
        check_same_run(before, identity(now_settings), tmp_path)


def test_missing_shards_are_those_without_a_whole_file(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.missing("llama", 3) == [0, 1, 2]
    run.score("llama", 1).parent.mkdir(parents=True)
    run.score("llama", 1).write_bytes(b"")
    (run.score("llama", 2).parent / ".00002.parquet.1a2b.tmp").write_bytes(b"")
    assert run.missing("llama", 3) == [0, 2]


def test_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"

    def fail_half_way() -> None:
        with written_whole(path) as aside:
            aside.write_text("half")
            raise RunError("the disk is full")

    with pytest.raises(RunError):
        fail_half_way()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=r"choose another --output"):
        RunDirectory(tmp_path).read_manifest()
