"""A loss of power at any moment: what the disk held is mounted again, and the same command ends in the same bytes."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from lmsys_ray.scoring.settings import Settings
from tests.fault_tolerance.jobs import ROOT
from tests.local_job import make_settings, run_job

ROWS = 160


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mounts the ext4 file system in `image`, to which nothing then goes but what is synced, for some minutes."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,commit=900", str(image), str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    with ExitStack() as stack:
        try:
            subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
            folder = stack.enter_context(mounted(image, tmp_path / "disk"))
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a file system in a file cannot be mounted here ({error})")
        yield folder


def start(folder: Path, settings: Settings) -> subprocess.Popen[bytes]:
    (folder / "run.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return subprocess.Popen([sys.executable, "-m", "tests.local_job", str(folder / "run.yaml")], cwd=ROOT)


def made(run: Path) -> dict[str, bytes]:
    names = ["submission.csv", "rejects.jsonl", "shards/*", "scores/*/*"]
    return {str(path.relative_to(run)): path.read_bytes() for name in names for path in run.glob(name)}


@pytest.mark.slow
def test_a_disk_without_power_holds_what_was_done(tmp_path: Path, disk: Path) -> None:
    whole = make_settings(tmp_path, ROWS)
    run_job(whole)
    expected = made(Path(whole.output))
    settings = whole.model_copy(update={"output": str(disk / "run")})
    process = start(tmp_path, settings)
    cuts = []
    for number, files in enumerate((1, 10, 30, 50)):
        while process.poll() is None and len(list(disk.glob("run/*/*.parquet")) + list(disk.glob("run/*/*/*"))) < files:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        cuts.append(tmp_path / f"cut-{number}.img")
        shutil.copy(tmp_path / "disk.img", cuts[-1])
        process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    cuts.append(tmp_path / "end.img")
    shutil.copy(tmp_path / "disk.img", cuts[-1])
    assert made(disk / "run") == expected

    kept = []
    for cut in cuts:
        with mounted(cut, tmp_path / "again") as again:
            there = made(again / "run")
            assert not [name for name in there if ".tmp" not in name and there[name] != expected[name]]
            report = run_job(whole.model_copy(update={"output": str(again / "run")}))
            kept.append(2 * (ROWS - 1) - sum(report.scored.values()))
            assert made(again / "run") == expected
    assert kept == sorted(kept)
    assert kept[0] == 0 < kept[2] < kept[-1] == 2 * (ROWS - 1), "what was scored before a cut is there behind it"
