"""Counts the deaths of workers and ends those that hang, with Ray's actors."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmsys_ray.attempts import Attempt, Attempts, Death, Task, Worker
from lmsys_ray.errors import RunError, UnscorableError
from lmsys_ray.isolation import tolerated_deaths
from lmsys_ray.processes import Process

_POLL_SECONDS = 2.0


class Reporter:
    """What a worker tells the ledger of a job.

    Of a task at which `most_deaths` workers died it refuses the next attempt.
    """

    def __init__(self, ledger: Any, member: str, step: str, most_deaths: int) -> None:
        self._ledger = ledger
        self._member = member
        self._step = step
        self._most_deaths = most_deaths

    def rows(self, shard: int, count: int) -> Callable[[int, int], AbstractContextManager[None]]:
        """Returns what is to be held around computing rows from a first to before a last one of a shard of `count`.

        It raises `UnscorableError` where workers died at them more often than can be chance.
        """

        @contextmanager
        def attempt(start: int, stop: int) -> Iterator[None]:
            task = Task(self._member, self._step, shard, start, stop)
            deaths = self._begin(task, tolerated_deaths(start, stop, count, self._most_deaths))
            if deaths:
                raise UnscorableError(f"{_processes(deaths)} died or hung at it (members.{self._member}, {self._step})")
            with self._until_end(task):
                yield

        return attempt

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Held around the start of an actor; raises `RunError` where it died in it again and again."""
        task = Task(self._member, self._step, str(ray.get_runtime_context().get_actor_id()))
        deaths = self._begin(task, self._most_deaths)
        if deaths:
            raise RunError(
                f"{_processes(deaths)} died or hung while loading the model, perhaps for want of memory; set "
                "quantization, give a replica more GPUs, or run fewer replicas on a machine"
            )
        with self._until_end(task):
            yield

    def _begin(self, task: Task, most_deaths: int) -> int:
        """Begins an attempt and returns 0, or gives `task` up and returns the number of deaths."""
        worker = Worker(Process.current(), ray.get_runtime_context().get_node_id())
        deaths, pause = ray.get(self._ledger.begin.remote(task, worker))
        if deaths >= most_deaths:
            ray.get(self._ledger.give_up.remote(task))
            return deaths
        time.sleep(pause)
        return 0

    @contextmanager
    def _until_end(self, task: Task) -> Iterator[None]:
        try:
            yield
        finally:
            ray.get(self._ledger.end.remote(task))


class Watchdog:
    """Holds a job's ledger, ends workers that are at one task for longer than `seconds`, and tells what happened."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._done = threading.Event()
        self._ended: set[Attempt] = set()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger: Any = ray.remote(Attempts)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self.ledger = ledger.options(**lasting).remote()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.deaths: Counter[str] = Counter()
        """How many workers of each member died or were ended."""

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if error is None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(min(_POLL_SECONDS, self._seconds / 4)):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            for death in ray.get(self.ledger.news.remote()):
                self._tell(death)
            for attempt in ray.get(self.ledger.overdue.remote(self._seconds)):
                self._end(attempt)
        except RayError as error:
            if not self._done.is_set():
                self._say(f"the watchdog cannot reach the cluster ({type(error).__name__})")

    def _tell(self, death: Death) -> None:
        self.deaths[death.task.member] += 1
        self._say(f"{death.task}: {death.worker.process} died or was ended (death {death.count}); it is tried again")

    def _end(self, attempt: Attempt) -> None:
        """Kills a worker on its own node, once; Ray starts another in its place, as it does where the node is lost."""
        if attempt in self._ended:
            return
        self._ended.add(attempt)
        there = NodeAffinitySchedulingStrategy(attempt.worker.node, soft=False)
        try:
            killed = ray.get(_kill.options(scheduling_strategy=there).remote(attempt.worker.process))
        except RayError:
            return
        if killed:
            self._say(f"{attempt.task}: {attempt.worker.process} took more than {self._seconds:g} s, so it was ended")


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


@ray.remote(num_cpus=0, max_retries=0)
def _kill(process: Process) -> bool:
    return process.kill()
