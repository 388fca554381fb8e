"""Simulated passes: what is summed up, and that the dispatch keeps unequal replicas busy."""

from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.errors import RunError
from lmsys_ray.simulation.simulate import Dispatch, row_tokens, shard_tokens, simulate, usage


def span(shard: int, replica: int, ready: float, began: float, ended: float, speed: float = 10) -> dict[str, float]:
    return {"shard": shard, "replica": replica, "ready": ready, "began": began, "ended": ended, "speed": speed}


def test_usage_is_the_share_of_the_replicas_time() -> None:
    spans = [span(0, 1, 0, 0, 4), span(1, 2, 2, 2, 4), span(2, 1, 0, 4, 6)]
    used = usage(spans, np.array([40, 20, 20]), 2)
    assert used.seconds == 6
    assert used.efficiency == pytest.approx(8 / 10)
    assert used.ideal_seconds == pytest.approx(5)  # 80 tokens, of which the first replica does 20 before the second


def test_a_replica_that_got_nothing_was_held_in_vain() -> None:
    assert usage([span(0, 1, 0, 0, 4)], np.array([40]), 2).efficiency == pytest.approx(0.5)


def test_a_lost_shard_is_an_error() -> None:
    with pytest.raises(RunError, match="of 2 shards 1 came back"):
        usage([span(0, 1, 0, 0, 4)], np.array([40, 40]), 2)


def test_shards_hold_all_rows_and_the_tail_is_long() -> None:
    lengths = np.array([5, 10])
    even = shard_tokens(lengths, 1000, 64, "even")
    tail = shard_tokens(lengths, 1000, 64, "long tail")
    assert len(even) == len(tail) == 16
    assert 5000 <= even.sum() <= 10000
    assert np.array_equal(even[:-1], tail[:-1])
    assert tail[-1] - even[-1] >= 9 * 5 * 10


def test_row_tokens_counts_real_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,prompt,response_a,response_b\n1,"[""hi""]","[""a""]","[""b""]"\n2,x,y,' + "word " * 300 + "\n")
    from tests.tiny_llama import make_tokenizer

    make_tokenizer(tmp_path / "model")
    short, long = row_tokens(str(path), str(tmp_path / "model"), 64)
    assert short < long == 64


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("kind", "shards"), [("dynamic", 24), ("static", 2)])
def test_a_simulated_pass_goes_through_every_shard_with_every_replica(kind: Dispatch, shards: int) -> None:
    used = simulate(np.full(24, 100), 2, 400, kind, "slow replica", 0.5)
    assert (used.shards, used.tokens, used.replicas) == (shards, 2400, 2)
    assert used.ideal_seconds >= 4  # 2400 tokens at 400 + 200 a second
    assert used.seconds >= used.ideal_seconds
    assert 0 < used.efficiency <= 1


def test_fewer_shards_than_replicas_is_told() -> None:
    with pytest.raises(RunError, match="3 shards leave some of 4 replicas without work; lower --shard-rows"):
        simulate(np.ones(3), 4, 1, "dynamic", "even", 0)
