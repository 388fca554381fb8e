"""Damaged files, a full disk, a vanished directory, a second job: one sentence, nothing half taken for whole."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_tolerance.jobs import (
    finish,
    scored_files,
    start,
    submission,
    write_input,
    write_settings,
)

pytestmark = pytest.mark.slow


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_damaged_files_are_made_again(tmp_path: Path, lightgbm: dict) -> None:
    ids = write_input(tmp_path / "in.csv", 64)
    write_settings(tmp_path, {"lightgbm": lightgbm}, shard_rows=8)
    code, said = finish(tmp_path)
    assert code == 0, said
    run = tmp_path / "run"
    expected = (run / "submission.csv").read_bytes()

    flip(run / "scores" / "lightgbm" / "00002.parquet")
    cut(run / "scores" / "lightgbm" / "00005.parquet")
    code, said = finish(tmp_path)
    assert code == 0, said
    assert "00002.parquet is damaged (its checksum does not match)" in said
    assert "2 damaged files are made again" in said
    assert "lightgbm: 16 rows" in said
    assert (run / "submission.csv").read_bytes() == expected

    conversations = {path: path.read_bytes() for path in sorted((run / "shards").glob("*.parquet"))}
    flip(run / "shards" / "00001.parquet")
    cut(run / "shards" / "00006.parquet")
    (run / "scores" / "lightgbm" / "00006.parquet").unlink()
    code, said = finish(tmp_path)
    assert code == 0, said
    assert "2 damaged files are made again" in said
    assert "lightgbm: 8 rows" in said
    assert {path: path.read_bytes() for path in conversations} == conversations
    assert (run / "submission.csv").read_bytes() == expected
    assert [line[0] for line in submission(tmp_path)] == ids


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system at `tmp_path`/disk, which only root may mount; the parameter is its limits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def fill(folder: Path, disk: Path, member: dict) -> list[str]:
    """Runs a job on a disk that is too small for it, which ends with one sentence; returns the ids of its input."""
    ids = write_input(folder / "in.csv", 160)
    write_settings(folder, {"lightgbm": member}, output=str(disk / "run"), shard_rows=8)
    (folder / "run").symlink_to(disk / "run")
    code, said = finish(folder)
    assert code == 1, said
    assert "cannot be written (No space left on device)" in said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    return ids


@pytest.mark.parametrize("small_disk", ["size=96k"], indirect=True)
def test_full_and_read_only_disks_end_with_a_sentence_and_the_job_goes_on(
    tmp_path: Path, small_disk: Path, lightgbm: dict
) -> None:
    ids = fill(tmp_path, small_disk, lightgbm)

    remount(small_disk, "ro,size=8m")
    code, said = finish(tmp_path)
    assert code == 1, said
    assert "cannot be written (Read-only file system)" in said

    remount(small_disk, "rw,size=8m")
    code, said = finish(tmp_path)
    assert code == 0, said
    assert [line[0] for line in submission(tmp_path)] == ids


@pytest.mark.soak
@pytest.mark.parametrize("small_disk", ["size=8m,nr_inodes=16", "size=8m,nr_inodes=40"], indirect=True)
def test_a_disk_without_inodes_ends_with_a_sentence_and_the_job_goes_on(
    tmp_path: Path, small_disk: Path, lightgbm: dict
) -> None:
    """In ingest, or in the pass."""
    ids = fill(tmp_path, small_disk, lightgbm)
    assert os.statvfs(small_disk).f_bavail > 1000, "there is room, but no inode is left"

    remount(small_disk, "size=8m,nr_inodes=4000")
    code, said = finish(tmp_path)
    assert code == 0, said
    assert [line[0] for line in submission(tmp_path)] == ids


@pytest.mark.soak
def test_vanished_run_directory_ends_with_a_sentence(tmp_path: Path, lightgbm: dict) -> None:
    ids = write_input(tmp_path / "in.csv", 400)
    write_settings(tmp_path, {"lightgbm": lightgbm}, shard_rows=2)
    process = start(tmp_path)
    while process.poll() is None and len(scored_files(tmp_path)) < 5:
        time.sleep(0.01)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "manifest.json").exists()

    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    shutil.move(tmp_path / "elsewhere", tmp_path / "run")
    code, said = finish(tmp_path)
    assert code == 0, said
    assert [line[0] for line in submission(tmp_path)] == ids


def test_second_job_is_refused_while_the_first_lives(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 400)
    write_settings(tmp_path, {"lightgbm": lightgbm}, shard_rows=2)
    first = start(tmp_path)
    while first.poll() is None and not (tmp_path / "run" / "lock.json").exists():
        time.sleep(0.01)
    code, said = finish(tmp_path)
    assert code == 1
    assert f"is at work for process {first.pid} on " in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    code, said = finish(tmp_path)
    assert code == 0, said


@pytest.mark.soak
def test_too_many_rejects_stop_the_run_before_it_scores(tmp_path: Path, lightgbm: dict) -> None:
    write_input(tmp_path / "in.csv", 64, dict.fromkeys(range(12), '["unclosed'))
    write_settings(tmp_path, {"lightgbm": lightgbm})
    code, said = finish(tmp_path)
    assert code == 1
    kind = "prompt is not valid JSON; plain text needs --set cells=text"
    assert f"12 of 64 rows are rejects, more than max_error_rate = 0.01 lets pass ({kind}: 12)" in said
    assert scored_files(tmp_path) == []
    code, said = finish(tmp_path, "--set", "max_error_rate=0.5", "--strict")
    assert code == 3, said
    assert f"rejects: 12 of the kind: {kind}" in said
