"""The run directory: what a run is made from, and which of its shards are missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import SHARD
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import read_table, write_table
from lmsys_ray.scoring.fingerprint import check_same_run, fingerprint
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.files import atomic_file


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
    before = fingerprint(settings(tmp_path))
    (tmp_path / "model" / "README.md").write_text("a card")
    now = fingerprint(settings(tmp_path, weight=3, replicas=2, batch_tokens=64))
    assert now == before


def test_micro_batches_of_int8_may_not_change(tmp_path: Path) -> None:
    """What bitsandbytes gives a row depends on what else is in its micro-batch."""
    before = fingerprint(settings(tmp_path, quantization="int8", batch_tokens=256))
    assert fingerprint(settings(tmp_path, quantization="int8", batch_tokens=256, weight=3, replicas=2)) == before
    with pytest.raises(RunError, match=r"members\.llama\.batch_tokens = 256, now it is 4096; continue with the old"):
        check_same_run(before, fingerprint(settings(tmp_path, quantization="int8", batch_tokens=4096)), tmp_path)


def test_a_setting_that_came_later_was_its_default(tmp_path: Path) -> None:
    before = fingerprint(settings(tmp_path))
    for key in ("append_eos", "special_tokens", "labels"):
        del before["members"]["llama"][key]
    check_same_run(before, fingerprint(settings(tmp_path)), tmp_path)
    with pytest.raises(RunError, match=r"members\.llama\.append_eos = false, now it is true"):
        check_same_run(before, fingerprint(settings(tmp_path, append_eos=True)), tmp_path)
    with pytest.raises(RunError, match=r"largest_cell = 67108864, now it is 4096"):
        check_same_run(before, fingerprint(settings(tmp_path).model_copy(update={"largest_cell": 4096})), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"max_length": 64}, {"template": "labelled"}, {"quantization": "nf4"}, {"swap": True}, {"text": "notebook"}],
)
def test_what_moves_probabilities_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    before = fingerprint(settings(tmp_path))
    with pytest.raises(RunError, match=f"members.llama.{next(iter(change))} = "):
        check_same_run(before, fingerprint(settings(tmp_path, **change)), tmp_path)


def test_another_model_under_the_same_path_is_noticed(tmp_path: Path) -> None:
    before = fingerprint(settings(tmp_path))
    now_settings = settings(tmp_path)
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    with pytest.raises(RunError, match="model_content"):
        check_same_run(before, fingerprint(now_settings), tmp_path)


def test_missing_shards_are_those_without_a_whole_file(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.missing("llama", 3) == [0, 1, 2]
    run.prepare()
    write_table(TABLE, run.score("llama", 1))
    half = run.score("llama", 2).parent / ".00002.parquet.1a2b.tmp"
    half.write_bytes(b"PAR1")
    assert run.missing("llama", 3) == [0, 2]
    run.prepare()
    assert not half.exists()


def test_the_shards_with_most_text_come_first(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for number, length in enumerate([10, 5000, 10, 90_000]):
        text = np.random.default_rng(number).bytes(length).hex()
        write_table(pa.table({"prompt": [text]}), run.shard(number))
    assert run.largest_first([0, 1, 2, 3]) == [3, 1, 0, 2]
    assert run.largest_first([2, 0]) == [2, 0]


TABLE = pa.table({"row": [7, 8], "id": ["sha256:", "b"], "a": [0.25, 0.5]})


def test_table_comes_back_and_any_reader_can_read_it(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == TABLE
    assert read_table(tmp_path / "t.parquet", ["id"]) == TABLE.select(["id"])
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == TABLE.to_pydict()


def test_every_single_damage_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(TABLE, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(DamagedError, match=r"t\.parquet is damaged \(its checksum"):
                read_table(path)
    path.unlink()
    with pytest.raises(DamagedError, match="is gone"):
        read_table(path)


def test_damaged_files_are_removed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.prepare()
    paths = [run.shard(0), run.shard(1), run.score("m", 0), run.score("m", 1)]
    for path in paths[:2]:
        write_table(SHARD.empty_table(), path)
    for path in paths[2:]:
        write_table(
            pa.table({"row": pa.array([], pa.int64()), **dict.fromkeys(CLASSES, pa.array([], pa.float32()))}), path
        )
    for path in paths[1:3]:
        path.write_bytes(path.read_bytes()[:-1])
    assert run.remove_damaged() == paths[1:3]
    assert run.missing_conversations(2) == [1]
    assert run.missing("m", 2) == [0]


def test_scores_of_a_removed_run_directory_are_not_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    shutil.rmtree(run.path)
    with pytest.raises(RunError, match=r"00000\.parquet cannot be written \(No such file or directory\); mend that"):
        write_table(TABLE, run.score("m", 0))
    assert not run.path.exists()


def test_shards_that_nobody_vouches_for_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.read_manifest() is None
    run.prepare()
    write_table(TABLE, run.shard(0))
    with pytest.raises(RunError, match=r"holds shards but no manifest\.json"):
        run.read_manifest()


def test_unscorable_rows_are_named_once_however_often_the_run_is_joined(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    ingested = json.dumps({"file": "f", "row": 1, "id": "x", "reason": "prompt is missing"}) + "\n"
    run.rejects.write_text(ingested)
    failed = [{"file": None, "row": None, "id": "y", "reason": "too long", "member": "m"}]
    for _ in range(2):
        run.write_unscorable(failed)
        assert run.reject_reasons() == {"prompt is missing": 1, "too long": 1}
    run.write_unscorable([])
    assert run.rejects.read_text() == ingested


def test_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"

    def fail_half_way() -> None:
        with atomic_file(path) as aside:
            aside.write_text("half")
            raise RunError("the disk is full")

    with pytest.raises(RunError):
        fail_half_way()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "4"}'])
def test_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=r"choose another --output"):
        RunDirectory(tmp_path).read_manifest()
