"""The probe measures what a member takes, after its first call; a member that sleeps takes a known time."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.errors import UnscorableError, UsageError
from lmsys_ray.members.protocol import Scores
from lmsys_ray.planning import probe as probing
from lmsys_ray.planning.probe import probe, probe_rows, row_bytes
from tests.planning.test_sampling import conversations

SECOND_OF_BYTE = 0.0002
FIRST_CALL = 0.3


class Sleeping:
    """A kind whose members take 0.2 ms for each byte of the texts, and longer in their first call."""

    lane = "cpu"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def encoder(self, *_: Any) -> None:
        return None

    def scorer(self, *_: Any) -> Any:
        time.sleep(0.05)
        return SimpleNamespace(score=self.score)

    def score(self, rows: pa.Table) -> Scores:
        time.sleep(SECOND_OF_BYTE * float(row_bytes(rows).sum()) + (0 if self.calls else FIRST_CALL))
        self.calls.append(rows.num_rows)
        return Scores(np.full((rows.num_rows, 3), 1 / 3, np.float32))


class Refusing(Sleeping):
    def score(self, rows: pa.Table) -> Scores:
        raise UnscorableError("no")


def measured(monkeypatch: pytest.MonkeyPatch, kind: Sleeping, rows: pa.Table, **settings: Any) -> Any:
    monkeypatch.setattr(probing, "kind_of", lambda _: kind)
    chosen: Any = SimpleNamespace(swap=False, **settings)
    return probe("judge", chosen, "auto", rows, shard_rows=64, in_tokens=False)


def test_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Sleeping()
    speed = measured(monkeypatch, kind, conversations(0, 100, "x" * 10))
    assert kind.calls[:3] == [4, 64, 36]
    assert speed.rate == pytest.approx(1 / SECOND_OF_BYTE, rel=0.3)
    assert speed.load >= 0.05
    assert (speed.units, speed.measured) == ("bytes", True)


def test_few_rows_are_scored_again_until_their_time_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Sleeping()
    measured(monkeypatch, kind, conversations(0, 8, "x" * 10))
    assert len(kind.calls) == 1 + probing._MOST_ROUNDS


def test_texts_that_are_all_empty_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, Sleeping(), conversations(0, 8, "")).rate > 0


def test_a_member_that_scores_nothing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none of the 8 rows of --probe could be scored"):
        measured(monkeypatch, Refusing(), conversations(0, 8))


def test_rows_are_as_long_as_those_of_the_sample() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 1, 2000).astype(int) + 1
    sample = pa.concat_tables([conversations(n, 1, "x" * length) for n, length in enumerate(lengths)])
    chosen = probe_rows(sample, 64)
    assert chosen.num_rows == len(set(chosen["row"].to_pylist())) == 64
    assert chosen["row"].to_pylist() == sorted(chosen["row"].to_pylist())
    assert row_bytes(chosen).mean() == pytest.approx(row_bytes(sample).mean(), rel=0.05)
    assert probe_rows(sample, 5000).num_rows == 2000
