"""Intervals: against formulas written out for each battle, and against strengths that are known."""

import numpy as np
import pytest

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.settings import TieName
from lmsys_ray.ensemble.leaderboard.strengths import estimate
from tests.ensemble.leaderboard.arenas import drawn, names, of_parameters

STRENGTHS = np.array([-0.9, -0.3, 0.0, 0.1, 0.4, 0.7])
MODELS = len(STRENGTHS)


def sandwich(battles: Battles, ties: TieName, parameters: np.ndarray) -> np.ndarray:
    """Returns the covariance [size, size], strengths about their mean, with derivatives by finite differences."""
    size, h = len(parameters), 1e-4
    steps = h * np.eye(size)

    def scores(x: np.ndarray) -> np.ndarray:
        up, down = (np.array([of_parameters(battles, ties, x + sign * step) for step in steps]) for sign in (1, -1))
        return (up - down) / (2 * h)

    hessian = np.array(
        [scores(parameters + step).sum(axis=1) - scores(parameters - step).sum(axis=1) for step in steps]
    )
    free = slice(1, size - 1 if ties == "half" else size)  # the first model is 0, and half has no tie parameter
    inverse = np.linalg.inv(-hessian[free, free] / (2 * h))
    s = scores(parameters)[free]
    covariance = np.zeros((size, size))
    covariance[free, free] = inverse @ (s @ s.T) @ inverse
    about_mean = np.eye(size)
    about_mean[:MODELS, :MODELS] -= 1 / MODELS
    return about_mean @ covariance @ about_mean.T


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
@pytest.mark.parametrize("effects", [None, np.array([0.5, -0.2])])
def test_sandwich_is_that_of_the_formula(ties: TieName, effects: np.ndarray | None) -> None:
    battles = drawn(STRENGTHS, 500, 1, "davidson", 0.8, False, effects)
    found = estimate(battles, ties, 0)
    tie = 0.0 if ties == "half" else found.tie[0]
    parameters = np.concatenate([found.values, found.coefficients[0] / found.spreads, [tie]])
    errors = 1.959964 * np.sqrt(np.diag(sandwich(battles, ties, parameters)))
    np.testing.assert_allclose(found.values - found.intervals[0], errors[:MODELS], rtol=1e-4)
    np.testing.assert_allclose(found.intervals[1] - found.values, errors[:MODELS], rtol=1e-4)
    of_style = errors[MODELS:-1] * found.spreads
    np.testing.assert_allclose(found.coefficients[2] - found.coefficients[0], of_style, rtol=1e-4)
    if ties == "davidson":  # whose parameter is fitted as its logarithm
        np.testing.assert_allclose(np.log(found.tie[2] / tie), errors[-1] / tie, rtol=1e-4)
    if ties == "rao_kupper":
        np.testing.assert_allclose(found.tie[2] - tie, errors[-1], rtol=1e-4)


@pytest.mark.parametrize(("ties", "tie"), [("half", 0.0), ("davidson", 0.8), ("rao_kupper", 0.5)])
def test_intervals_hold_the_true_strengths(ties: TieName, tie: float) -> None:
    inside = []
    for seed in range(40):
        found = estimate(drawn(STRENGTHS, 1500, seed, ties, tie, effects=np.array([0.4])), ties, 0)
        truth = STRENGTHS - STRENGTHS.mean()
        inside += [*(found.intervals[0] <= truth), *(truth <= found.intervals[1])]
        inside += [
            0.4 * found.spreads[0] <= found.coefficients[2, 0],
            found.coefficients[1, 0] <= 0.4 * found.spreads[0],
        ]
    assert 0.96 < np.mean(inside) < 0.99  # 0.975 at each end


@pytest.mark.parametrize("ties", ["half", "davidson"])
@pytest.mark.parametrize("effects", [None, np.array([0.5])])
@pytest.mark.parametrize("labels", [True, False])
def test_bootstrap_and_sandwich_agree(ties: TieName, effects: np.ndarray | None, labels: bool) -> None:
    battles = drawn(STRENGTHS, 1500, 5, "davidson", 0.8, labels, effects)
    found = estimate(battles, ties, 600)
    assert found.resamples == 600
    widths = np.diff(found.bootstrapped, axis=0) / np.diff(found.intervals, axis=0)
    np.testing.assert_allclose(widths, 1, atol=0.15)
    np.testing.assert_allclose(found.bootstrapped.mean(axis=0), found.values, atol=0.03)


def test_bootstrap_is_the_same_twice() -> None:
    battles = drawn(STRENGTHS, 500, 6, labels=False)
    once, again = (estimate(battles, "half", 20).bootstrapped for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert (once[0] < once[1]).all()


def test_a_model_of_one_battle_has_no_interval() -> None:
    """Its strength fits the battle without a residual, so that the sandwich's interval would have no width."""
    battles = drawn(STRENGTHS, 500, 7, labels=False)
    more = Battles(
        names(MODELS + 1),
        np.append(battles.first, np.int32(MODELS)),
        np.append(battles.second, np.int32(0)),
        np.vstack([battles.outcomes, [[0.6, 0.3, 0.1]]]),
    )
    found = estimate(more, "half", 50)
    assert np.isfinite(found.values).all()
    assert np.isnan(found.intervals[:, MODELS]).all()
    assert np.isfinite(found.intervals[:, :MODELS]).all()
    assert found.resamples < 45  # a third of the resamples lack the battle
    assert np.isnan(found.bootstrapped).all()
