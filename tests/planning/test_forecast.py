"""Hours and GPUs from shards and speeds, against sums by hand and a simulation of the replicas."""

import heapq

import pytest

from lmsys_ray.planning.forecast import Pass, StartUp, forecast, gpus_needed, lane_seconds

NONE = StartUp(0, 0, 0, 0, 0)


def on_gpus(shards: int, replicas: int, shard_seconds: float = 10, load: float = 60, name: str = "judge") -> Pass:
    return Pass(name, "device", replicas, 0, shards, shard_seconds, load, measured=False)


def simulated(shards: int, replicas: int, shard_seconds: float, load: float) -> float:
    """Each free replica takes the next shard."""
    free = [load] * replicas
    for _ in range(shards):
        heapq.heapreplace(free, free[0] + shard_seconds)
    return max(free)


@pytest.mark.parametrize(("shards", "replicas"), [(1, 1), (7, 8), (8, 8), (9, 8), (98, 8), (1000, 24)])
def test_a_pass_takes_what_its_replicas_take(shards: int, replicas: int) -> None:
    assert on_gpus(shards, replicas).seconds == pytest.approx(simulated(shards, replicas, 10, 60))


def test_passes_of_a_lane_follow_one_another_and_lanes_run_side_by_side() -> None:
    first, second = on_gpus(10, 1), on_gpus(10, 1, name="other")
    beside = Pass("trees", "cpu", 4, 4, 10, 40, 0, measured=True)
    assert first.seconds + second.seconds == 320
    assert lane_seconds([first, second, beside], cores=8) == 320
    found = forecast([first, second, beside], 0, 7, StartUp(1, 2, 5, 10, 3), 8, 1)
    assert found.scoring == 320 + 2 * (5 + 10)
    assert found.passes == {"judge": 175, "other": 175, "trees": beside.seconds + 5}
    assert found.seconds == 1 + 2 + 3 + 7 + 350


def test_on_a_cpu_the_lanes_share_its_cores() -> None:
    model = Pass("judge", "device", 1, 2, 10, 10, 0, measured=True)
    trees = Pass("trees", "cpu", 1, 1, 10, 4, 0, measured=True)
    assert lane_seconds([model, trees], cores=2) == 100 + 40 / 2


def test_price_is_of_all_gpus_from_beginning_to_end() -> None:
    found = forecast([on_gpus(360, 8, 80, 0)], 1000, 0, NONE, cores=8, gpus=8, price=2.5)
    assert found.seconds == pytest.approx(45 * 80 + 1000 / 50_000)
    assert found.gpu_hours == pytest.approx(8 * found.seconds / 3600)
    assert found.cost == pytest.approx(2.5 * found.gpu_hours)
    assert found.low < found.seconds < found.high


def test_assumed_speeds_have_the_wider_range() -> None:
    assumed = forecast([on_gpus(10, 1)], 0, 0, NONE, 2, 1)
    measured = forecast([Pass("judge", "device", 1, 0, 10, 10, 60, measured=True)], 0, 0, NONE, 2, 1)
    assert assumed.seconds == measured.seconds
    assert assumed.low < measured.low < measured.high < assumed.high


def test_the_smallest_number_of_gpus_that_meets_a_deadline() -> None:
    def seconds(gpus: int) -> float:
        return on_gpus(100, gpus).seconds

    assert gpus_needed(seconds, 1060, 100) == (1, 1060)
    assert gpus_needed(seconds, 1059, 100) == (2, 560)
    # 100 shards of 10 s in 140 s, 60 of which are loading: 8 rounds, so 13 replicas.
    assert gpus_needed(seconds, 140, 100) == (13, 140)
    assert gpus_needed(seconds, 70, 100) == (100, 70)
    assert gpus_needed(seconds, 69, 100) == (None, 70)


def test_numbers_of_gpus_on_which_a_member_has_no_room_are_passed_over() -> None:
    assert gpus_needed(lambda gpus: None if gpus < 4 else 50.0, 60, 8) == (4, 50.0)
    assert gpus_needed(lambda gpus: None, 60, 8) == (None, None)


def test_starts_take_as_long_as_the_machine_is_slow() -> None:
    assert StartUp.of(2.4).ray == pytest.approx(2 * StartUp.of().ray)
