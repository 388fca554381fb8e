"""A side in its own process: what it says, what it holds, how it dies."""

import sys
from pathlib import Path

import pytest

from lmsys_ray.benchmark.side_process import SideFailed, SideProcess

SIDE = """
import sys, time
from lmsys_ray.benchmark.side_process import CLOCKS, host_memory, serve

def load():
    if sys.argv[1] == "no-load":
        raise ValueError("no such model")
    print("a library prints this while loading")
    turns = iter([b"", b"", None])

    def run():
        print("and this while running")
        time.sleep(0.05)
        held = next(turns)
        if held is None:
            raise MemoryError("out of memory")
        held = bytearray(int(sys.argv[1]) << 20)
        return {"slots": 7}

    return run

serve(load, host_memory, CLOCKS["wall"])
"""


def start(tmp_path: Path, argument: str) -> SideProcess:
    buffered = {"PYTHONUNBUFFERED": ""}
    return SideProcess([sys.executable, "-c", SIDE, argument], buffered, tmp_path / "log")


def test_each_run_is_answered_with_its_seconds_and_memory(tmp_path: Path) -> None:
    small, large = start(tmp_path, "1"), start(tmp_path, "200")
    turns = [worker.run() for worker in (small, large, small, large)]
    assert all(0.05 <= turn.seconds < 5 for turn in turns)
    assert all(turn.answer == {"slots": 7} for turn in turns)
    assert turns[1].memory - turns[0].memory == pytest.approx(199 << 20, rel=0.1)
    assert "a library prints this" in (tmp_path / "log").read_text()
    small.close()
    large.close()


def test_a_side_that_cannot_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(SideFailed, match="ValueError: no such model"):
        start(tmp_path, "no-load")


def test_a_side_that_dies_says_why(tmp_path: Path) -> None:
    worker = start(tmp_path, "1")
    worker.run()
    worker.run()
    with pytest.raises(SideFailed, match="MemoryError: out of memory"):
        worker.run()
    worker.close()
