"""What is told of a stage under way: the time left, the replicas, and words for every width."""

import csv
import heapq
import math
from pathlib import Path

import pytest

from lmsys_ray.scoring.stage_progress import StageProgress, line, words
from lmsys_ray.scoring.utilization import Utilization

LENGTHS = Path(__file__).with_name("lengths.csv")
"""Bytes and tokens of 1,600 real rows of Chatbot Arena, whose texts are not here."""

SHARD_ROWS, MAX_LENGTH, TOKENS_PER_SECOND = 16, 1024, 1000.0


def shards() -> list[tuple[int, int]]:
    """Returns the bytes and the tokens of each shard, largest first; a row is cut at the maximum length."""
    with LENGTHS.open() as file:
        rows = [(int(row["bytes"]), min(MAX_LENGTH, int(row["tokens"]))) for row in csv.DictReader(file)]
    parts = [rows[first : first + SHARD_ROWS] for first in range(0, len(rows), SHARD_ROWS)]
    sizes = [(sum(size for size, _ in part), sum(tokens for _, tokens in part)) for part in parts]
    return sorted(sizes, reverse=True)


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_the_time_left_is_right_after_a_tenth_of_a_pass(replicas: int) -> None:
    waiting = shards()
    progress = StageProgress("llama", 1600, 0.0, sum(size for size, _ in waiting), replicas)
    # Each replica loads for another while, then computes one shard after another.
    at_work = [(20.0 + 3 * number, number, (0, 0)) for number in range(replicas)]
    done, told = 0, list[tuple[float, float]]()
    while at_work:
        now, replica, (size, tokens) = heapq.heappop(at_work)
        if tokens:
            progress.utilization.add(str(replica), tokens / TOKENS_PER_SECOND, now)
            progress.add(SHARD_ROWS, tokens, size)
            done += 1
            if len(shards()) / 10 <= done <= len(shards()) * 0.9:
                left = progress.facts(now)["seconds_left"]
                told.append((now, left))
        if waiting:
            shard = waiting.pop(0)
            heapq.heappush(at_work, (now + shard[1] / TOKENS_PER_SECOND, replica, shard))
    assert len(told) > 50
    for when, left in told:
        assert left == pytest.approx(now - when, rel=0.2, abs=20)


def test_replicas_that_fell_silent_are_not_alive() -> None:
    used = Utilization()
    for moment in (10.0, 20.0, 30.0):
        used.add("a", 10.0, moment)
    used.add("b", 10.0, 10.0)
    assert used.alive(31.0) == 2
    assert used.alive(75.0) == 1
    assert used.seconds_left(4, 3, 75.0) == pytest.approx(3 * 10 - 45, abs=1e-9) or used.seconds_left(4, 3, 75.0) == 0
    assert used.seconds_left(4, 30, 75.0) == pytest.approx(30 * 10 - 45)
    assert used.seconds_left(0, 30, 75.0) is None


def test_a_pass_tells_of_its_replicas_before_the_first_shard() -> None:
    progress = StageProgress("llama", 400, 100.0, 9000, 2)
    assert line(progress.facts(130.0)) == "llama: 0 of 400 (0%) rows after 30 s, 2 loading"
    progress.utilization.add("a", 10.0, 150.0)
    progress.add(100, 50_000, 3000)
    facts = progress.facts(150.0)
    assert facts == {
        **{"stage": "llama", "rows": 100, "of": 400, "seconds": 50.0, "rows_per_second": 10.0},
        **{"tokens_per_second": 5000.0, "replicas": 1, "loading": 1, "busy": 1.0, "seconds_left": 20.0},
    }
    assert line(facts) == (
        "llama: 100 of 400 (25%) rows after 50 s, 20 s left, 10 rows/s, 5,000 tokens/s, 1 replica 100% busy, 1 loading"
    )


@pytest.mark.parametrize("width", range(12, 120))
def test_words_fit_every_width_and_begin_with_the_counts(width: int) -> None:
    progress = StageProgress("llama", 25_000, 0.0, 9000, 2)
    progress.utilization.add("a", 100.0, 150.0)
    progress.add(1_000, 500_000, 360)
    text = words(progress.facts(150.0), width)
    assert text.startswith("1,000/25,000")
    assert len(text) <= width
    assert ("40 min" in text) == (width >= len("1,000/25,000  40 min left"))


def test_ingest_without_a_limit_knows_no_end_until_it_ends() -> None:
    progress = StageProgress("ingest", None, 0.0)
    progress.add(500)
    assert line(progress.facts(2.0)) == "ingest: 500 rows after 2 s, 250 rows/s"
    progress.of, progress.ended = 500, 2.0
    assert line(progress.facts(math.inf)) == "ingest: 500 of 500 (100%) rows after 2 s, 250 rows/s"
