"""Rows at which computing fails are found by dividing, and nothing else is lost."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.errors import UnscorableError
from lmsys_ray.fault_tolerance.ledger import Ledger, Worker, WorkItem
from lmsys_ray.fault_tolerance.row_isolation import compute_rows, tolerated_deaths
from lmsys_ray.processes import Process

WORKER = Worker(Process.current(), "node")


class Died(BaseException):
    """The process of a simulated worker is gone."""


def simulate(rows: int, killers: set[int], ledger: Ledger, limit: int) -> tuple[list[list[int]], dict[int, str]]:
    """One life of a worker at a shard, as `watchdog.Reporter` keeps its ledger."""

    @contextmanager
    def attempt(start: int, stop: int) -> Iterator[None]:
        item = WorkItem("m", "score", 0, start, stop)
        deaths, _ = ledger.begin(item, WORKER)
        if deaths >= tolerated_deaths(start, stop, rows, limit):
            ledger.give_up(item)
            raise UnscorableError(f"{deaths} died")
        yield
        ledger.end(item)

    def compute(start: int, stop: int) -> list[int]:
        if killers & set(range(start, stop)):
            raise Died
        return list(range(start, stop))

    return compute_rows(rows, compute, attempt)


@given(st.integers(1, 60), st.data(), st.integers(1, 3))
def test_exactly_the_rows_that_kill_are_left_out(rows: int, data: st.DataObject, limit: int) -> None:
    killers = data.draw(st.sets(st.integers(0, rows - 1), max_size=4))
    ledger, deaths = Ledger(), 0
    while True:
        try:
            parts, failed = simulate(rows, killers, ledger, limit)
            break
        except Died:
            deaths += 1
            assert deaths <= limit + (rows + limit) * len(killers), "the search does not end"
    assert sorted([row for part in parts for row in part]) == sorted(set(range(rows)) - killers)
    assert [row for part in parts for row in part] == sorted(set(range(rows)) - killers)
    assert set(failed) == killers
    assert all(reason == f"{limit} died" for reason in failed.values())
    # A death is told when its task begins again; the last ones of tasks that were never tried again stay unknown.
    assert len(ledger.drain_deaths()) == deaths


@pytest.mark.parametrize("error", [UnscorableError("too long"), MemoryError()])
def test_rows_that_raise_are_found_without_any_death(error: Exception) -> None:
    largest = []

    def compute(start: int, stop: int) -> range:
        largest.append(stop - start)
        if stop - start > 30 or start <= 17 < stop:
            raise error
        return range(start, stop)

    parts, failed = compute_rows(100, compute, lambda start, stop: nullcontext())
    assert [row for part in parts for row in part] == [row for row in range(100) if row != 17]
    assert failed == {17: str(error) or "it needs more memory than there is"}
    assert len(largest) < 25, "a batch that is too large becomes smaller ones, not single rows"


def test_a_good_shard_is_computed_at_once() -> None:
    parts, failed = simulate(1000, set(), Ledger(), 3)
    assert parts == [list(range(1000))]
    assert failed == {}


def test_deaths_by_chance_are_forgotten_when_a_task_ends() -> None:
    ledger, item = Ledger(), WorkItem("m", "score", 0, 0, 10)
    pauses = [ledger.begin(item, WORKER) for _ in range(3)]
    assert pauses == [(0, 0.0), (1, 1.0), (2, 2.0)], "each death makes the next attempt wait longer"
    ledger.end(item)
    assert ledger.begin(item, WORKER) == (0, 0.0)


def test_what_takes_too_long_is_overdue_until_it_ends() -> None:
    ledger, item = Ledger(), WorkItem("m", "score", 0, 0, 10)
    ledger.begin(item, WORKER)
    assert ledger.overdue(60) == []
    assert [attempt.item for attempt in ledger.overdue(-1)] == [item]
    ledger.end(item)
    assert ledger.overdue(-1) == []
