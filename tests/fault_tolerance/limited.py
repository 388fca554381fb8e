"""Control groups, which only root may make; tests are skipped where they cannot be had."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def control_group(memory: int) -> Iterator[Path]:
    """Gives the file to which processes are written that may have so many bytes of memory together."""
    first = (_GROUPS / "memory").is_dir()
    group = (_GROUPS / "memory" if first else _GROUPS) / f"lmsys_ray_{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(memory))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        pytest.skip("a control group with a limit on memory cannot be made here")
    try:
        yield group / "cgroup.procs"
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Removes a group once its processes are gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.2)
