"""The linear model of the winner: fitted and applied as the textbook says, without a side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lmsys_ray.members.lightgbm.linear import CLIP, LinearModel, log_odds, with_linear
from lmsys_ray.members.lightgbm.training.linear_fit import fit_linear

MODELS = [
    LinearModel(scales=[1.0, 2.0, 0.5], weights=[0.5, -1.0, 0.25]),
    LinearModel(scales=[3.0, 1.0, 1.0], weights=[0.0, 0.75, -2.0]),
]


def probabilities(rows: int) -> np.ndarray:
    return np.random.default_rng(1).dirichlet([2, 2, 1], rows)


def test_log_odds_are_clipped_differences_times_weights() -> None:
    differences = np.random.default_rng(0).normal(scale=4, size=(50, 3))
    expected = [np.clip(differences / model.scales, -CLIP, CLIP) @ model.weights for model in MODELS]
    assert (abs(differences) > CLIP).any()
    assert np.allclose(log_odds(MODELS, differences), np.mean(expected, axis=0), rtol=1e-12)
    assert np.array_equal(log_odds(MODELS, -differences), -log_odds(MODELS, differences))


@given(st.floats(0, 1), st.integers(0, 100))
def test_the_winner_is_a_mean_of_log_odds_and_the_tie_stays(share: float, seed: int) -> None:
    before, odds = probabilities(20), np.random.default_rng(seed).normal(scale=3, size=20)
    after = with_linear(before, odds, share)
    assert np.allclose(after.sum(axis=1), 1)
    assert np.array_equal(after[:, 2], before[:, 2])
    expected = (1 - share) * np.log(before[:, 0] / before[:, 1]) + share * odds
    assert np.allclose(np.log(after[:, 0] / after[:, 1]), expected, atol=1e-9)
    assert np.array_equal(with_linear(before[:, [1, 0, 2]], -odds, share), after[:, [1, 0, 2]])


def test_a_winner_without_doubt_stays_a_number() -> None:
    assert np.isfinite(with_linear(np.array([[1.0, 0.0, 0.0]]), np.array([-5.0]), 0.5)).all()


def test_the_fit_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    differences = random.normal(scale=[0.1, 5, 1], size=(400, 3))
    labels = np.where(differences @ [8, 0.1, -0.5] + random.logistic(size=400) > 0, 0, 1)
    labels[:90] = 2
    weights = np.repeat([1.0, 0.5], 200)
    found = fit_linear(differences, labels, weights, penalty=0.05)
    kept, share = labels < 2, weights[labels < 2] / weights[labels < 2].sum()
    scaled = np.clip(differences[kept] / found.scales, -CLIP, CLIP)
    reference = LogisticRegression(C=1 / 0.05, fit_intercept=False, tol=1e-10)
    reference.fit(scaled, labels[kept] == 0, sample_weight=share)
    assert found.weights == pytest.approx(reference.coef_[0], abs=1e-4)
    assert found.scales == pytest.approx(np.sqrt(np.mean(differences[kept] ** 2, axis=0)), abs=1e-5)


def test_ties_alone_say_nothing_of_the_winner() -> None:
    assert fit_linear(np.ones((5, 2)), np.full(5, 2), np.ones(5), 0.1).weights == [0, 0]
