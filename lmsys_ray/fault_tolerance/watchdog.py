"""Counts the deaths of workers, and ends workers that hang."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmsys_ray.errors import RunError, UnscorableError
from lmsys_ray.fault_tolerance.death_limit import DeathLimit, WorkerDeaths
from lmsys_ray.fault_tolerance.ledger import Attempt, Death, Ledger, Worker, WorkItem
from lmsys_ray.fault_tolerance.row_isolation import tolerated_deaths
from lmsys_ray.polling import PollThread
from lmsys_ray.processes import Process

_POLL_SECONDS = 2.0

_LEDGER_SECONDS = 10.0

_LAST_LOOK_SECONDS = 2.0
"""For the last look after an error, since the cluster may not answer."""


class Reporter:
    """Reports the work of one worker to the ledger; refuses items at which `most_deaths` workers have died."""

    def __init__(self, ledger: Any, member: str, step: str, most_deaths: int) -> None:
        self._ledger = ledger
        self._member = member
        self._step = step
        self._most_deaths = most_deaths

    def rows(self, shard: int, count: int) -> Callable[[int, int], AbstractContextManager[None]]:
        """Returns a context manager to surround computing rows `start` to `stop` - 1 of a shard of `count` rows.

        It raises `UnscorableError` where too many workers have died at these rows.
        """

        @contextmanager
        def attempt(start: int, stop: int) -> Iterator[None]:
            item = WorkItem(self._member, self._step, shard, start, stop)
            deaths = self._begin(item, tolerated_deaths(start, stop, count, self._most_deaths))
            if deaths:
                raise UnscorableError(f"{_processes(deaths)} died or hung at it (members.{self._member}, {self._step})")
            with self._until_end(item):
                yield

        return attempt

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Surrounds the start of an actor; raises `RunError` where it has died there too often."""
        item = WorkItem(self._member, self._step, str(ray.get_runtime_context().get_actor_id()))
        deaths = self._begin(item, self._most_deaths)
        if deaths:
            raise RunError(
                f"{_processes(deaths)} died or hung while loading the model, perhaps for lack of memory; set "
                "quantization, give a replica more GPUs, or run fewer replicas on a machine"
            )
        with self._until_end(item):
            yield

    @contextmanager
    def reading(self, path: str, place: int, part: int) -> Iterator[None]:
        """Surrounds reading a part of the file at `place` in the input, by where it begins.

        Raises `RunError` where that keeps killing processes.
        """
        item = WorkItem(self._member, self._step, path, place, part)
        deaths = self._begin(item, self._most_deaths)
        if deaths:
            raise RunError(
                f"input: {path}: {_processes(deaths)} died while reading it, perhaps for lack of memory; mend or leave "
                "out that file, give the machine more memory, or let more die by --set max_deaths=NUMBER"
            )
        with self._until_end(item):
            yield

    def _begin(self, item: WorkItem, most_deaths: int) -> int:
        """Begins an attempt and returns 0, or gives `item` up and returns the number of deaths."""
        worker = Worker(Process.current(), ray.get_runtime_context().get_node_id())
        deaths, pause = _answer(self._ledger.begin.remote(item, worker))
        if deaths >= most_deaths:
            _answer(self._ledger.give_up.remote(item))
            return deaths
        time.sleep(pause)
        return 0

    @contextmanager
    def _until_end(self, item: WorkItem) -> Iterator[None]:
        try:
            yield
        finally:
            _answer(self._ledger.end.remote(item))


class Watchdog:
    """Holds the ledger of a job, ends workers that take longer than `seconds` for one item, and reports all deaths.

    `on_death` is called with the member, or `input`, of each worker that died or was ended; `give_up` with an error
    when processes keep dying.
    """

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], None],
        on_death: Callable[[str], None],
        max_deaths: int,
        give_up: Callable[[RunError], None],
    ) -> None:
        self._seconds = seconds
        self._say = say
        self._give_up = give_up
        self._limit = DeathLimit(max_deaths)
        self._worker_deaths = WorkerDeaths()
        self._ended: set[Attempt] = set()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger: Any = ray.remote(Ledger)
        # Not restarted for ever, since a new ledger has forgotten all deaths.
        lasting = {"num_cpus": 0, "max_restarts": max_deaths, "max_task_retries": -1, "scheduling_strategy": here}
        self.ledger = ledger.options(**lasting).remote()
        self._thread = PollThread("watchdog", min(_POLL_SECONDS, seconds / 4), self._poll, at_end=self._look)
        self._on_death, self._deaths = on_death, 0

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop(None if error is None else _LAST_LOOK_SECONDS)

    def progress(self) -> None:
        """Notes that some work was completed."""
        self._limit.progress()

    def _poll(self) -> None:
        self._look()
        if self._worker_deaths.due():
            error = self._limit.check(*self._worker_deaths.read(), self._deaths, time.monotonic())
            if error:
                self._thread.cancel()
                self._give_up(error)

    def _look(self) -> None:
        try:
            for death in ray.get(self.ledger.drain_deaths.remote(), timeout=_LEDGER_SECONDS):
                self._report(death)
            for attempt in ray.get(self.ledger.overdue.remote(self._seconds), timeout=_LEDGER_SECONDS):
                self._end(attempt)
        except GetTimeoutError:
            pass  # It is being restarted; the death limit still works meanwhile.
        except ActorDiedError:
            if not self._thread.cancelled:
                self._thread.cancel()
                self._give_up(_without_ledger())
        except RayError as error:
            if not self._thread.cancelled:
                self._say(f"the watchdog cannot reach the cluster ({type(error).__name__})")

    def _report(self, death: Death) -> None:
        self._deaths += 1
        self._on_death(death.item.member)
        self._say(f"{death.item}: {death.worker.process} died or was ended (death {death.count}); it is tried again")

    def _end(self, attempt: Attempt) -> None:
        """Kills a worker on its own node, once; Ray starts another in its place, as after the loss of a node."""
        if attempt in self._ended:
            return
        self._ended.add(attempt)
        there = NodeAffinitySchedulingStrategy(attempt.worker.node, soft=False)
        try:
            killed = ray.get(_kill.options(scheduling_strategy=there).remote(attempt.worker.process))
        except RayError:
            return
        if killed:
            self._say(f"{attempt.item}: {attempt.worker.process} took more than {self._seconds:g} s, so it was ended")


def _answer(reply: Any) -> Any:
    """Returns the ledger's answer; raises `RunError` where it died too often to be restarted."""
    try:
        return ray.get(reply)
    except ActorDiedError:
        raise _without_ledger() from None


def _without_ledger() -> RunError:
    return RunError(
        "the process that counts the deaths of others kept dying itself, most likely for lack of memory; "
        "give the machine of this command or its control group more memory and start the same command again"
    )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


@ray.remote(num_cpus=0, max_retries=0)
def _kill(process: Process) -> bool:
    return process.kill()
