"""Processes that keep dying: the run ends if no work item is to blame, and continues if one is."""

import threading
import time

import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.fault_tolerance.death_limit import DeathLimit, raising_in_main_thread


def looks(limit: DeathLimit, deaths: list[int], known: list[int], nodes: int = 1) -> list[float]:
    """Looks every 5 s at so many deaths in all; returns when the run was to end."""
    found = []
    for place, (dead, told) in enumerate(zip(deaths, known, strict=True)):
        if limit.check([b"%d" % n for n in range(dead)], nodes, told, 5.0 * place):
            found.append(5.0 * place)
    return found


def test_deaths_that_no_task_is_to_blame_for_end_the_run_after_half_a_minute() -> None:
    deaths = list(range(0, 60, 2))
    assert looks(DeathLimit(3), deaths, [0] * 30)[0] == 8 * 5 + 30
    assert looks(DeathLimit(3), deaths, [0] * 30, nodes=4) == []
    assert looks(DeathLimit(1), deaths, [0] * 30)[0] == 3 * 5 + 30


def test_deaths_that_the_ledger_knows_are_its_own_affair() -> None:
    deaths = list(range(0, 300, 10))
    assert looks(DeathLimit(3), deaths, [max(0, n - 10) for n in deaths]) == []


def test_many_deaths_at_once_that_the_ledger_hears_of_in_time_do_not_end_the_run() -> None:
    """As where all replicas of a node crash: it hears of them when their shards begin again."""
    assert looks(DeathLimit(3), [0, *[128] * 20], [0, 0, 0, 0, *[128] * 17]) == []


def test_work_that_comes_to_its_end_gives_hope() -> None:
    limit = DeathLimit(3)
    for place in range(100):
        assert limit.check([b"%d" % n for n in range(place * 3)], 1, 0, 5.0 * place) is None
        if place % 4 == 0:
            limit.progress()


def test_the_sentence_says_what_to_do() -> None:
    limit = DeathLimit(1)
    for now in (0.0, 31.0):
        error = limit.check([b"%d" % n for n in range(7)], 1, 0, now)
    assert str(error).startswith(
        "7 processes died one after another and nothing was done meanwhile, most likely for lack"
    )


def wait_for_an_error_of_another_thread() -> None:
    with raising_in_main_thread() as raise_there:
        threading.Timer(0.2, raise_there, [RunError("no hope")]).start()
        threading.Event().wait(30)


def test_an_error_of_another_thread_is_raised_in_the_main_one_while_it_waits() -> None:
    began = time.monotonic()
    with pytest.raises(RunError, match="no hope"):
        wait_for_an_error_of_another_thread()
    assert time.monotonic() - began < 10
