"""The share of time that replicas are held and do not compute."""

import pytest

from lmsys_ray.scoring.utilization import Utilization


def test_waiting_between_shards_and_at_the_end_is_idle() -> None:
    occupancy = Utilization()
    occupancy.add("first", 4.0, now=14.0)  # held from 10 on
    occupancy.add("second", 5.0, now=17.0)  # held from 12 on, idle from 17 on
    occupancy.add("first", 5.0, now=20.0)  # waited one second
    assert occupancy.idle_share(now=20.0) == pytest.approx(1 - 14 / 18)


def test_a_replica_that_always_computes_is_never_idle() -> None:
    occupancy = Utilization()
    for now in (13.0, 16.0, 19.0):
        occupancy.add("only", 3.0, now)
    assert occupancy.idle_share(now=19.0) == 0


def test_nothing_was_held_where_nothing_was_computed() -> None:
    assert Utilization().idle_share(now=1.0) == 0
