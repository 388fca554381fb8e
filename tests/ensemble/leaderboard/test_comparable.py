"""Models without a finite strength have none, and the reason; the others' strengths do not depend on them."""

import numpy as np
import pytest

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.comparable import ABOVE, ALONE, APART, BELOW, CONFOUNDED, UNSETTLED
from lmsys_ray.ensemble.leaderboard.settings import TieName
from lmsys_ray.ensemble.leaderboard.strengths import Strengths, estimate

A, B, TIE = [1, 0, 0], [0, 1, 0], [0, 0, 1]
CORE = [(0, 1, A), (0, 1, B), (1, 2, A), (1, 2, TIE), (2, 0, A), (2, 0, B), (2, 0, B)]


def standings(models: int, battles: list[tuple[int, int, list[int]]], ties: TieName = "half") -> Strengths:
    first, second, outcomes = (np.array(part) for part in zip(*battles, strict=True))
    names = [f"model-{number}" for number in range(models)]
    arena = Battles(names, first.astype(np.int32), second.astype(np.int32), outcomes.astype(np.float64))
    return estimate(arena, ties, 10)


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
@pytest.mark.parametrize(
    ("more", "reasons"),
    [
        ([(3, 0, A), (1, 3, B)], {3: ABOVE}),
        ([(3, 0, B), (1, 3, A)], {3: BELOW}),
        ([(3, 4, A), (3, 4, B)], {3: APART, 4: APART}),
        ([(3, 4, A), (4, 0, A)], {3: ABOVE, 4: ABOVE}),
        ([(3, 4, A), (0, 4, A)], {3: APART, 4: BELOW}),
        ([(3, 0, A), (0, 4, A), (3, 4, TIE)], {}),
    ],
)
def test_a_model_that_cannot_be_compared_is_put_out(
    more: list[tuple[int, int, list[int]]], reasons: dict[int, str], ties: TieName
) -> None:
    models = 1 + max(max(a, b) for a, b, _ in CORE + more)
    core, found = standings(3, CORE, ties), standings(models, more + CORE, ties)
    assert found.reasons == reasons
    for number in range(models):
        assert np.isfinite(found.values[number]) == (number not in reasons)
    if reasons:
        np.testing.assert_allclose(found.values[:3], core.values, atol=1e-9)
        np.testing.assert_allclose(found.intervals[:, :3], core.intervals, atol=1e-9)
        assert found.battles == core.battles == len(CORE)


def test_of_two_models_one_that_always_wins_leaves_no_strength() -> None:
    found = standings(2, [(0, 1, A), (1, 0, B)])
    assert np.isnan(found.values).all()
    assert found.reasons == {0: ALONE, 1: BELOW}


def test_a_tie_is_half_a_win() -> None:
    found = standings(2, [(0, 1, A), (0, 1, TIE)])
    np.testing.assert_allclose(found.values[0] - found.values[1], np.log(3))


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_a_likelihood_without_maximum_gives_no_strength(ties: TieName) -> None:
    """Where one model never loses, but ties, P(a) and P(tie) are fitted best by infinite parameters."""
    found = standings(2, [(0, 1, A), (0, 1, A), (0, 1, TIE)], ties)
    assert np.isnan(found.values).all()
    assert found.reasons == {0: UNSETTLED, 1: UNSETTLED}


def test_style_that_tells_models_apart_leaves_no_strength() -> None:
    first, second = np.zeros(30, np.int32), np.ones(30, np.int32)
    outcomes = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    arena = Battles(["brief", "long"], first, second, outcomes, np.full((30, 1), -0.4))
    found = estimate(arena, "half", 10)
    assert np.isnan(found.values).all()
    assert found.reasons == {0: CONFOUNDED, 1: CONFOUNDED}


def test_style_that_tells_the_winner_leaves_no_strength() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(3, size=60).astype(np.int32)
    second = ((first + generator.integers(1, 3, size=60)) % 3).astype(np.int32)
    style = generator.normal(size=(60, 1))
    outcomes = np.where(style > 0, [[1.0, 0, 0]], [[0, 1.0, 0]])
    found = estimate(Battles(["a", "b", "c"], first, second, outcomes, style), "half", 10)
    assert np.isnan(found.values).all()
    assert set(found.reasons.values()) == {UNSETTLED}
