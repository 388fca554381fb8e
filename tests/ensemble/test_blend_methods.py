"""Geometric and stacked blends as formulas write them, at a temperature and with a share of the prior."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import gmean

from lmsys_ray.ensemble.blend import blend
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.stacking import Stacking

GENERATOR = np.random.default_rng(1)
FIRST, SECOND = GENERATOR.dirichlet([1, 1, 1], 50), GENERATOR.dirichlet([2, 1, 0.5], 50)
MEMBERS = {"first": FIRST, "second": SECOND, "left out": np.full((50, 3), np.nan)}
WEIGHTS = {"first": 0.7, "second": 0.3}
EXCHANGED = [1, 0, 2]


def test_the_default_is_the_weighted_mean_to_the_bit() -> None:
    expected = blend({"first": FIRST, "second": SECOND}, WEIGHTS, 1.3)
    np.testing.assert_array_equal(Blend(WEIGHTS, 1.3).of(MEMBERS), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_geometric_is_the_weighted_geometric_mean(temperature: float) -> None:
    shares = np.array([0.7, 0.3])[:, None, None] * np.ones((2, *FIRST.shape))
    mean = gmean(np.stack([FIRST, SECOND]), weights=shares) ** (1 / temperature)
    found = Blend(WEIGHTS, temperature, "geometric").of(MEMBERS)
    np.testing.assert_allclose(found, mean / mean.sum(axis=1, keepdims=True), rtol=1e-12)


ROWS = st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.5, 2.0]), min_size=3, max_size=3).filter(any)


@pytest.mark.filterwarnings("error")
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(0, 100))
def test_zeros_are_the_limit_of_small_probabilities(rows: list[list[float]], seed: int) -> None:
    """Zeros stay zeros where a class is left, and never give NaN."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(rows)))
    weights = {str(n): float(weight) for n, weight in enumerate(drawn)}
    given = {str(n): np.array([row]) / sum(row) for n, row in enumerate(rows)}
    found = Blend(weights, 1.0, "geometric").of(given)[0]
    logs = np.zeros(3)
    for name, row in given.items():
        logs += weights[name] * np.where(row[0] > 0, np.log(np.maximum(row[0], 1e-320)), -1e9)
    np.testing.assert_allclose(found, softmax(logs), atol=1e-9)
    possible = np.all([row[0] > 0 for row in given.values()], axis=0)
    if possible.any():
        assert (found[~possible] == 0).all()


def test_stacking_follows_its_formulas() -> None:
    stacking = Stacking(0.4, {"first": (0.9, -0.2), "second": (0.3, 1.5)})
    logs = np.log(Blend(WEIGHTS, 1.0, "stacked", stacking).of(MEMBERS))

    def preference(rows: np.ndarray) -> np.ndarray:
        return np.log(rows[:, 0] / rows[:, 1])

    def ties(rows: np.ndarray) -> np.ndarray:
        return np.log(rows[:, 2] / np.sqrt(rows[:, 0] * rows[:, 1]))

    np.testing.assert_allclose(logs[:, 0] - logs[:, 1], 0.9 * preference(FIRST) + 0.3 * preference(SECOND), atol=1e-12)
    expected = 0.4 - 0.2 * ties(FIRST) + 1.5 * ties(SECOND)
    np.testing.assert_allclose(logs[:, 2] - (logs[:, 0] + logs[:, 1]) / 2, expected, atol=1e-12)
    warm = np.log(Blend(WEIGHTS, 2.0, "stacked", stacking).of(MEMBERS))
    np.testing.assert_allclose(warm[:, 0] - warm[:, 1], (logs[:, 0] - logs[:, 1]) / 2, atol=1e-12)


def test_stacking_with_weights_for_coefficients_is_the_geometric_mean() -> None:
    stacking = Stacking(0.0, {name: (weight, weight) for name, weight in WEIGHTS.items()})
    found = Blend(WEIGHTS, 1.7, "stacked", stacking).of(MEMBERS)
    np.testing.assert_allclose(found, Blend(WEIGHTS, 1.7, "geometric").of(MEMBERS), rtol=1e-12)


@pytest.mark.parametrize("method", ["linear", "geometric", "stacked"])
def test_exchanging_the_responses_exchanges_their_probabilities(method: str) -> None:
    stacking = Stacking(0.4, {"first": (0.9, -0.2), "second": (0.3, 1.5)}) if method == "stacked" else None
    way = Blend(WEIGHTS, 1.2, method, stacking)  # type: ignore[arg-type]
    exchanged = {name: rows[:, EXCHANGED] for name, rows in MEMBERS.items()}
    np.testing.assert_allclose(way.of(exchanged), way.of(MEMBERS)[:, EXCHANGED], rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_certain_members_give_probabilities_when_stacked() -> None:
    certain = np.eye(3)
    found = Blend({"m": 1.0}, 1.0, "stacked", Stacking(1.0, {"m": (1e6, -1e6)})).of({"m": certain})
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_share_of_the_prior_comes_last() -> None:
    prior = (0.5, 0.3, 0.2)
    for method in ("linear", "geometric"):
        without = Blend(WEIGHTS, 1.5, method).of(MEMBERS)  # type: ignore[arg-type]
        found = Blend(WEIGHTS, 1.5, method, None, 0.1, prior).of(MEMBERS)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, 0.9 * without + 0.1 * np.array(prior), rtol=1e-12)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
