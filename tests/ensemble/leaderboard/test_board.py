"""Battles collected from shards, and the standings that are made of them."""

import numpy as np
import pyarrow as pa
import pytest

from lmsys_ray.ensemble.leaderboard.battles import BattleCollector, Battles
from lmsys_ray.ensemble.leaderboard.board import leaderboard
from lmsys_ray.ensemble.leaderboard.settings import LeaderboardSettings
from lmsys_ray.ensemble.leaderboard.strengths import estimate
from lmsys_ray.errors import RunError
from tests.ensemble.leaderboard.arenas import drawn

STRENGTHS = np.array([0.3, -0.5, 0.0, 0.28, 0.9, -0.6, 0.05])


def settings(**values: object) -> LeaderboardSettings:
    return LeaderboardSettings.model_validate({"bootstrap": 0, **values})


def collected(rows: list[tuple[str | None, str | None]], shards: int) -> Battles:
    outcomes = np.random.default_rng(0).dirichlet([1, 1, 1], len(rows))
    late = np.arange(len(rows)) == len(rows) - 1
    collector = BattleCollector()
    for part in np.array_split(np.arange(len(rows)), shards):
        a, b = (pa.chunked_array([pa.array([rows[n][side] for n in part], pa.string())]) for side in (0, 1))
        collector.add(a, b, outcomes[part], {"late": late[part]}, outcomes[part][:, :1])
    return collector.battles()


@pytest.mark.parametrize("shards", [1, 2, 3, 9])  # nine have shards without rows
def test_rows_without_two_models_are_left_out_and_counted(shards: int) -> None:
    rows = [("owl", "elk"), (None, "elk"), ("elk", "elk"), ("elk", ""), ("ant", "owl"), (None, None), ("elk", "bee")]
    battles = collected(rows, shards)
    assert battles.left_out == {"unnamed": 3, "same_model": 1, "late": 1}
    assert battles.models == ["ant", "elk", "owl"]
    met = [(battles.models[a], battles.models[b]) for a, b in zip(battles.first, battles.second, strict=True)]
    assert met == [rows[0], rows[4]]
    expected = np.random.default_rng(0).dirichlet([1, 1, 1], len(rows))[[0, 4]]
    np.testing.assert_array_equal(battles.outcomes, expected)
    np.testing.assert_array_equal(battles.style, expected[:, :1])


def test_standings_are_those_of_the_battles() -> None:
    battles = drawn(STRENGTHS, 800, 1, "davidson", 0.8, labels=False)
    board = leaderboard(battles, settings(bootstrap=20))
    found = estimate(battles, "half", 20)
    order = [battles.models.index(standing.model) for standing in board.standings]
    points = 1000 + 400 / np.log(10) * np.vstack([found.values, found.intervals, found.bootstrapped])[:, order]
    shown = [(s.strength, s.lower, s.upper, s.lower_bootstrap, s.upper_bootstrap) for s in board.standings]
    np.testing.assert_allclose(np.array(shown).T, points, rtol=1e-12)
    assert sorted(points[0], reverse=True) == list(points[0])
    for standing in board.standings:
        assert standing.rank == 1 + sum(other.lower > standing.upper for other in board.standings)
    assert board.standings[0].rank == 1 < board.standings[-1].rank

    for row, model in enumerate(order):
        as_a, as_b = battles.first == model, battles.second == model
        won = battles.outcomes[as_a, 0].sum() + battles.outcomes[as_b, 1].sum()
        tied = battles.outcomes[as_a | as_b, 2].sum()
        standing = board.standings[row]
        assert standing.battles == (as_a | as_b).sum() == board.battles[row].sum()
        assert standing.win_rate == pytest.approx((won + tied / 2) / standing.battles)
        assert standing.tie_rate == pytest.approx(tied / standing.battles)
        for column, other in enumerate(order):
            met_as_a, met_as_b = as_a & (battles.second == other), as_b & (battles.first == other)
            shares = [*(battles.outcomes[met_as_a] @ [1, 0, 0.5]), *(battles.outcomes[met_as_b] @ [0, 1, 0.5])]
            assert board.battles[row, column] == len(shares)
            assert np.isnan(board.win_rates[row, column]) == (not shares)
            if shares:
                assert board.win_rates[row, column] == pytest.approx(np.mean(shares))


def test_an_anchor_moves_all_strengths_alike() -> None:
    battles = drawn(STRENGTHS, 800, 2)
    free, anchored = (leaderboard(battles, settings(anchor=anchor)) for anchor in (None, "model-03"))
    by_name = {standing.model: standing for standing in anchored.standings}
    assert by_name["model-03"].strength == pytest.approx(1000)
    assert [s.rank for s in free.standings] == [s.rank for s in anchored.standings]
    moves = [
        end - start
        for standing in free.standings
        for start, end in zip(
            (standing.strength, standing.lower, standing.upper),
            (by_name[standing.model].strength, by_name[standing.model].lower, by_name[standing.model].upper),
            strict=True,
        )
    ]
    np.testing.assert_allclose(moves, moves[0])
    assert sum(standing.strength or 0 for standing in free.standings) == pytest.approx(1000 * len(STRENGTHS))


def test_an_anchor_needs_a_strength() -> None:
    outcomes = np.eye(3)[[0, 1, 0]]
    places = [np.array(part, np.int32) for part in ([0, 0, 2], [1, 1, 0])]
    battles = Battles(["fern", "kite", "moss"], *places, outcomes)
    assert [s.strength is None for s in leaderboard(battles, settings()).standings] == [False, False, True]
    with pytest.raises(RunError, match=r"anchor: moss has no strength \(it won every battle that connects it"):
        leaderboard(battles, settings(anchor="moss"))
    with pytest.raises(RunError, match=r"anchor: oak is none of the 3 models \(fern, kite, moss\)"):
        leaderboard(battles, settings(anchor="oak"))
