"""Starts the processes of the sides of a benchmark, each in the environment that it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import lmsys_ray
from lmsys_ray.benchmark.side_process import SideProcess, SideRun
from lmsys_ray.benchmark.sides.registry import VLLM
from lmsys_ray.benchmark.task import BenchmarkTask

_SOURCE = Path(lmsys_ray.__file__).parents[1]


class SidePool:
    """Runs sides by name, each in its own process, which stays alive between runs if `keep`.

    A GPU holds one side at a time: there a process ends after each run, and the next one loads anew. It then runs
    twice, once to warm up, unless `warm_up` is false.
    """

    def __init__(self, task: BenchmarkTask, vllm_python: str | None, keep: bool, warm_up: bool = True) -> None:
        self._task = task
        self._vllm_python = vllm_python
        self._keep = keep
        self._warm_up = warm_up
        self._workers: dict[str, SideProcess] = {}

    def __enter__(self) -> SidePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._workers):
            self._close(name)

    def run(self, name: str) -> SideRun:
        """Runs a side once; raises `SideFailed` where it cannot load or run."""
        if name not in self._workers:
            self._workers[name] = self._start(name)
            if self._warm_up and not self._keep:
                self._workers[name].run()  # compiles kernels and fills caches
        run = self._workers[name].run()
        if not self._keep:
            self._close(name)
        return run

    def _close(self, name: str) -> None:
        self._workers.pop(name).close()

    def _start(self, name: str) -> SideProcess:
        python, environment = sys.executable, {"OMP_NUM_THREADS": str(self._task.threads)}
        if name == VLLM:
            python = self._vllm_python or python
            environment = {"PYTHONPATH": str(_SOURCE), **_vllm_environment(Path(python), self._task.threads)}
        command = [python, "-m", "lmsys_ray.benchmark.sides.registry", self._task.folder, name]
        log = Path(self._task.folder) / f"{name.replace(':', '-')}.log"
        return SideProcess(command, environment, log)


def _vllm_environment(python: Path, threads: int) -> dict[str, str]:
    """Returns the environment to measure vLLM: one process and, on a CPU, threads bound to cores and Intel's OpenMP."""
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if library := next(python.parents[1].glob("lib/libiomp5.so"), None):
        environment["LD_PRELOAD"] = str(library)
    return environment
