"""A machine whose memory runs short: Ray's memory monitor ends workers, and the rows are divided until they fit."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.fault_tolerance.jobs import (
    command,
    environment,
    finish,
    make_lightgbm,
    submission,
    write_input,
    write_settings,
)
from tests.fault_tolerance.limited import control_group

pytestmark = [pytest.mark.slow, pytest.mark.soak]

EATEN = 3 << 30
JOB = 3 << 29
"""What the job itself may take at most."""
ROOM = JOB + EATEN * 3 // 2
"""One such row fits, two at once do not."""


def limited() -> bool:
    limit = Path("/sys/fs/cgroup/memory.max")
    return limit.exists() and limit.read_text().strip() != "max"


@pytest.mark.skipif(limited(), reason="memory is limited by a control group, whose use this test does not measure")
@pytest.mark.skipif(psutil.virtual_memory().available < ROOM + (3 << 30), reason="needs 9 GB of free memory")
def test_shard_that_needs_too_much_memory_is_divided_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(used + ROOM) / memory.total:.4f}")
    monkeypatch.setenv("EATEN_BYTES", str(EATEN))
    ids = write_input(tmp_path / "in.csv", 48, {17: "this row EATS-MEMORY", 30: "and so does EATS-MEMORY"})
    write_settings(tmp_path, {"lightgbm": make_lightgbm(tmp_path)})
    code, said = finish(tmp_path, "--strict", poisoned=True)
    assert code == 0, said
    assert [line[0] for line in submission(tmp_path)] == ids
    assert "lightgbm: 3 processes died or hung and were started again" in said, said
    assert "rows: 48 read, 48 scored, 0 rejected" in said


def test_a_control_group_that_is_too_small_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    """The driver and Ray's own processes fit, its workers do not: the kernel kills them before their tasks begin."""
    write_input(tmp_path / "in.csv", 400)
    write_settings(tmp_path, {"lightgbm": make_lightgbm(tmp_path)})
    began = time.monotonic()
    with control_group(700 << 20) as processes:
        entered = ["sh", "-c", f'echo $$ > {processes}; exec "$@"', "sh", *command()]
        done = subprocess.run(
            entered, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=600, check=False
        )
    last = (done.stdout + done.stderr).splitlines()[-1]
    print(last, f"{time.monotonic() - began:.0f} s", sep="\n")
    assert done.returncode == 1, done.stderr
    assert last.startswith("error: "), last
    assert "lack of memory" in last
    assert "give the machine" in last
    code, said = finish(tmp_path)
    assert code == 0, said
