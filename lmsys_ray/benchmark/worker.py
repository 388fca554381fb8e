"""One side of a benchmark in a process of its own: it loads once, then runs whenever it is told to.

A line of JSON goes back for each run. The process may use another Python than the benchmark's, so that this file needs
nothing but the standard library and numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_LOG_TAIL = 4000

Clock = Callable[[], float]

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
"""What seconds are: the wall's, or those that the process's threads spent on a CPU, whatever else the machine does.

Threads that wait for each other may spin, and so seem to work, while another program holds them up: on a shared machine
processor seconds are to be trusted of one thread alone.
"""


@dataclass(frozen=True)
class Turn:
    """One run of a side."""

    seconds: float
    memory: int
    """Bytes: the most that the process held so far, or on a GPU what is in use after the run."""
    answer: dict[str, Any]
    """What the side reports of this run, as JSON has it."""


class SideFailed(Exception):
    """A side could not load or run; the text is the last line that it said."""


Side = Callable[[], dict[str, Any]]
"""Runs once and reports; the time that this takes is the measurement."""


def serve(load: Callable[[], Side], memory: Callable[[], int], clock: Clock) -> None:
    """The process's life: loads a side, says so, and answers each line on standard input with a `Turn`.

    What libraries print goes to standard error, so that it cannot mix with the answers.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        side = load()
        answers.write("ready\n")
        for _ in sys.stdin:
            started = clock()
            answer = side()
            turn = Turn(clock() - started, memory(), answer)
            answers.write(json.dumps(asdict(turn)) + "\n")


class Worker:
    """The other end of `serve`."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                text=True,
            )
        self._answer()

    def run(self) -> Turn:
        """Runs the side once; raises `SideFailed` where it cannot."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(self._last_words()) from None
        return Turn(**json.loads(self._answer()))

    def close(self) -> None:
        """Ends the process and waits for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(self._last_words())
        return line

    def _last_words(self) -> str:
        self._process.wait()
        said = self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"ended with the exit code {self._process.returncode}"


def host_memory() -> int:
    """Returns the most bytes of memory that this process has held, as Linux counts them (VmHWM)."""
    return _status("VmHWM")


def resident_memory() -> int:
    """Returns the bytes of memory that this process holds (VmRSS)."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
