"""One side of a benchmark in a process of its own: it loads once, then runs each time it is asked to.

Each run returns a line of JSON. The process may use another Python than the benchmark, so that this file needs only the
standard library.
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
"""Wall-clock seconds, or seconds that the process's threads spent on a CPU, regardless of other load.

Threads that wait for each other may spin and seem to work while another program holds them up: on a shared machine
processor seconds are reliable only with one thread.
"""


@dataclass(frozen=True)
class SideRun:
    """One run of a side."""

    seconds: float
    memory: int
    """Bytes: the peak of the process so far, or on a GPU what is in use after the run."""
    answer: dict[str, Any]
    """What the side reports about this run, as JSON."""


class SideFailed(Exception):
    """A side could not load or run; the message is its last line of output."""


Side = Callable[[], dict[str, Any]]
"""Runs once and returns a report; the time of the call is the measurement."""


def serve(load: Callable[[], Side], memory: Callable[[], int], clock: Clock) -> None:
    """Loads a side, reports that, and answers each line on standard input with a `SideRun`.

    What libraries print goes to standard error, so that it does not mix with the answers.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that errors come last, as they happen
        side = load()
        answers.write("ready\n")
        for _ in sys.stdin:
            started = clock()
            answer = side()
            run = SideRun(clock() - started, memory(), answer)
            answers.write(json.dumps(asdict(run)) + "\n")


class SideProcess:
    """A process that runs `serve`, seen from the benchmark."""

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

    def run(self) -> SideRun:
        """Runs the side once; raises `SideFailed` where it cannot."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(self._last_line()) from None
        return SideRun(**json.loads(self._answer()))

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
            raise SideFailed(self._last_line())
        return line

    def _last_line(self) -> str:
        self._process.wait()
        said = self._log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"ended with the exit code {self._process.returncode}"


def host_memory() -> int:
    """Returns the peak memory of this process in bytes (VmHWM)."""
    return _status("VmHWM")


def resident_memory() -> int:
    """Returns the memory of this process in bytes (VmRSS)."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
