"""Strengths against other implementations: scikit-learn's, and likelihoods written out for each battle."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from lmsys_ray.ensemble.leaderboard.battles import Battles
from lmsys_ray.ensemble.leaderboard.settings import TieName
from lmsys_ray.ensemble.leaderboard.strengths import estimate
from tests.ensemble.leaderboard.arenas import drawn, of_parameters

STRENGTHS = np.array([-0.9, -0.3, 0.0, 0.1, 0.4, 0.7])


def by_scikit_learn(battles: Battles) -> np.ndarray:
    """Returns strengths, then coefficients of style; a battle is a win and a loss with weights that sum to 1."""
    rows, models = len(battles.first), len(battles.models)
    design = np.zeros((rows, models))
    design[np.arange(rows), battles.first] = 1
    design[np.arange(rows), battles.second] = -1
    design = design[:, 1:]
    if battles.style is not None:
        design = np.hstack([design, battles.style])
    won = battles.outcomes[:, 0] + battles.outcomes[:, 2] / 2
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    fitted.fit(np.vstack([design, design]), np.repeat([1, 0], rows), np.concatenate([won, 1 - won]))
    strengths = np.concatenate([[0], fitted.coef_[0, : models - 1]])
    return np.concatenate([strengths - strengths.mean(), fitted.coef_[0, models - 1 :]])


def by_scipy(battles: Battles, ties: TieName, tie: float) -> np.ndarray:
    """Returns strengths, coefficients of style and the tie parameter."""
    models = len(battles.models)
    count = 0 if battles.style is None else battles.style.shape[1]

    def loss(x: np.ndarray) -> float:
        return -float(of_parameters(battles, ties, np.concatenate([[0], x])).mean())

    start = np.concatenate([np.zeros(models - 1 + count), [tie]])
    found = minimize(loss, start, method="BFGS", jac="3-point", options={"gtol": 1e-9}).x
    strengths = np.concatenate([[0], found[: models - 1]])
    return np.concatenate([strengths - strengths.mean(), found[models - 1 :]])


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("effects", [None, np.array([0.5, -0.2])])
def test_ties_as_half_wins_are_logistic_regression(labels: bool, effects: np.ndarray | None) -> None:
    battles = drawn(STRENGTHS, 3000, 1, "davidson", 0.8, labels, effects)
    found = estimate(battles, "half", 0)
    expected = by_scikit_learn(battles)
    np.testing.assert_allclose(found.values, expected[: len(STRENGTHS)], atol=1e-6)
    np.testing.assert_allclose(found.coefficients[0] / found.spreads, expected[len(STRENGTHS) :], atol=1e-6)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("effects", [None, np.array([0.5, -0.2])])
def test_ties_as_outcomes_have_the_highest_likelihood(ties: TieName, labels: bool, effects: np.ndarray | None) -> None:
    battles = drawn(STRENGTHS, 2000, 2, ties, 0.7, labels, effects)
    found = estimate(battles, ties, 0)
    expected = by_scipy(battles, ties, 0.5)
    np.testing.assert_allclose(found.values, expected[: len(STRENGTHS)], atol=1e-6)
    np.testing.assert_allclose(found.coefficients[0] / found.spreads, expected[len(STRENGTHS) : -1], atol=1e-6)
    np.testing.assert_allclose(found.tie[0], expected[-1], atol=1e-6)


def test_labels_without_ties_are_the_same_with_any_ties() -> None:
    battles = drawn(STRENGTHS, 1000, 3)
    half, davidson, rao_kupper = (estimate(battles, ties, 0) for ties in ("half", "davidson", "rao_kupper"))
    np.testing.assert_array_equal(davidson.values, half.values)
    np.testing.assert_array_equal(rao_kupper.values, half.values)
    assert np.isnan(davidson.tie).all()


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
def test_exchanging_a_and_b_changes_nothing(ties: TieName) -> None:
    battles = drawn(STRENGTHS, 1000, 4, "davidson", 0.8, False, np.array([0.5, -0.2]))
    assert battles.style is not None
    swapped = np.random.default_rng(0).random(1000) < 0.5
    other = Battles(
        battles.models,
        np.where(swapped, battles.second, battles.first),
        np.where(swapped, battles.first, battles.second),
        np.where(swapped[:, None], battles.outcomes[:, [1, 0, 2]], battles.outcomes),
        np.where(swapped[:, None], -battles.style, battles.style),
    )
    once, again = estimate(battles, ties, 0), estimate(other, ties, 0)
    np.testing.assert_allclose(again.values, once.values, atol=1e-9)
    np.testing.assert_allclose(again.intervals, once.intervals, atol=1e-9)
    np.testing.assert_allclose(again.coefficients, once.coefficients, atol=1e-9)


def test_a_model_far_ahead_has_a_strength() -> None:
    """Newton's steps from equal strengths would lead too far."""
    outcomes = np.tile([1 - 2e-9, 1e-9, 1e-9], (50, 1))
    battles = Battles(["strong", "weak"], np.zeros(50, np.int32), np.ones(50, np.int32), outcomes)
    found = estimate(battles, "half", 0)
    np.testing.assert_allclose(found.values[0] - found.values[1], np.log((1 - 1.5e-9) / 1.5e-9), rtol=1e-6)


def test_style_that_never_differs_has_no_coefficient() -> None:
    battles = drawn(STRENGTHS, 1000, 5, effects=np.array([0.5, 0.0]))
    assert battles.style is not None
    battles.style[:, 1] = 0
    alone = Battles(battles.models, battles.first, battles.second, battles.outcomes, battles.style[:, :1])
    found, expected = estimate(battles, "half", 10), estimate(alone, "half", 10)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    np.testing.assert_allclose(found.coefficients[:, 0], expected.coefficients[:, 0], atol=1e-12)
    assert np.isnan(found.coefficients[:, 1]).all()
