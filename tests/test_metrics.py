"""Metrics agree with scikit-learn and with values worked out by hand; intervals cover what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics

from lmsys_ray import metrics

TWO_ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows = draw(st.integers(1, 40))
    raw = draw(arrays(np.float64, (rows, 3), elements=st.floats(0.001, 1)))
    return raw / raw.sum(axis=1, keepdims=True), draw(arrays(np.int64, rows, elements=st.integers(0, 2)))


@given(predictions())
def test_log_loss_accuracy_and_brier_score_are_those_of_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = pair
    classes = [0, 1, 2]
    assert metrics.log_loss(probabilities, labels) == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=classes)
    )
    assert metrics.accuracy(probabilities, labels) == pytest.approx(
        sklearn_metrics.accuracy_score(labels, probabilities.argmax(axis=1))
    )
    assert metrics.brier_score(probabilities, labels) == pytest.approx(
        sklearn_metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    )


def test_metrics_of_two_rows_by_hand() -> None:
    labels = np.array([0, 2])
    assert metrics.log_loss(TWO_ROWS, labels) == pytest.approx(-(np.log(0.7) + np.log(0.3)) / 2)
    assert metrics.accuracy(TWO_ROWS, labels) == 0.5
    assert metrics.brier_score(TWO_ROWS, labels) == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.36 + 0.49) / 2)
    # 0.7 and 0.6 fall into different bins: one row is right with confidence 0.7, the other wrong with 0.6.
    assert metrics.calibration_error(TWO_ROWS, labels) == pytest.approx((0.3 + 0.6) / 2)
    # In one bin the two gaps, of opposite sign, offset each other.
    assert metrics.calibration_error(TWO_ROWS, labels, bins=1) == pytest.approx((0.6 - 0.3) / 2)


def test_probability_zero_of_what_happened_costs_much_but_not_everything() -> None:
    assert metrics.log_loss(np.array([[0.0, 1.0, 0.0]]), np.array([0])) == pytest.approx(-np.log(1e-15))


def test_class_shares_are_the_best_constant_answer() -> None:
    labels = np.array([0, 0, 1, 2, 0])
    shares = metrics.class_shares(labels)
    assert shares.tolist() == [0.6, 0.2, 0.2]
    best = metrics.log_loss(np.tile(shares, (5, 1)), labels)
    for other in ([0.5, 0.3, 0.2], [0.7, 0.15, 0.15], [1 / 3, 1 / 3, 1 / 3]):
        assert metrics.log_loss(np.tile(other, (5, 1)), labels) > best


def test_estimate_holds_the_metrics_in_their_order() -> None:
    labels = np.array([0, 2])
    estimate = metrics.estimate_metrics(TWO_ROWS, labels, np.arange(2), resamples=10)
    expected = [getattr(metrics, name)(TWO_ROWS, labels) for name in metrics.METRICS]
    np.testing.assert_allclose(estimate.values, expected)
    assert estimate.resampled.shape == (10, len(metrics.METRICS))


def sampled(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities given: perfectly calibrated."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([2, 2, 1], rows)
    labels = (generator.random(rows)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, np.minimum(labels, 2)


def test_interval_of_independent_rows_is_that_of_the_normal_approximation() -> None:
    probabilities, labels = sampled(4000, seed=1)
    losses = metrics.log_losses(probabilities, labels)
    low, high = metrics.estimate_metrics(probabilities, labels, np.arange(4000)).intervals()[:, 0]
    half = 1.96 * losses.std() / np.sqrt(4000)
    assert low == pytest.approx(losses.mean() - half, abs=half / 8)
    assert high == pytest.approx(losses.mean() + half, abs=half / 8)


def test_copies_of_a_row_under_one_prompt_are_no_further_evidence() -> None:
    probabilities, labels = sampled(500, seed=2)
    once = metrics.estimate_metrics(probabilities, labels, np.arange(500))
    copied = metrics.estimate_metrics(
        np.repeat(probabilities, 4, axis=0), np.repeat(labels, 4), np.repeat(np.arange(500), 4)
    )
    np.testing.assert_allclose(copied.intervals(), once.intervals(), atol=1e-12)


def test_interval_of_the_calibration_error_holds_the_error_itself() -> None:
    for rows, seed in ((100, 3), (1000, 4), (20000, 5)):
        estimate = metrics.estimate_metrics(*sampled(rows, seed), np.arange(rows))
        low, high = estimate.intervals()[:, -1]
        assert 0 <= low <= estimate.values[-1] <= high
    assert high < 0.02, "calibrated predictions of many rows come out as calibrated"


def test_difference_is_paired() -> None:
    probabilities, labels = sampled(800, seed=6)
    sharper = probabilities**1.2 / (probabilities**1.2).sum(axis=1, keepdims=True)
    clusters = np.arange(800)
    first, second = (
        metrics.estimate_metrics(probabilities, labels, clusters),
        metrics.estimate_metrics(sharper, labels, clusters),
    )
    difference = first - second
    width = np.ptp(difference.intervals()[:, 0])
    assert width < np.ptp(first.intervals()[:, 0]) / 3
    assert difference.values[0] == pytest.approx(first.values[0] - second.values[0])


def test_same_seed_gives_the_same_interval() -> None:
    pair = sampled(50, seed=7)
    first, second = (metrics.estimate_metrics(*pair, np.arange(50), seed=3).intervals() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (metrics.estimate_metrics(*pair, np.arange(50), seed=4).intervals() != first).any()


def test_reliability_bins_hold_equal_numbers_of_rows_in_rising_order() -> None:
    predicted = np.array([0.9, 0.1, 0.4, 0.2, 0.8, 0.6])
    happened = np.array([1, 0, 1, 0, 1, 0])
    mean, share, count = metrics.reliability(predicted, happened, bins=3)
    np.testing.assert_allclose(mean, [0.15, 0.5, 0.85])
    np.testing.assert_allclose(share, [0, 0.5, 1])
    assert count.tolist() == [2, 2, 2]


def test_more_bins_than_rows_leave_none_empty() -> None:
    mean, share, count = metrics.reliability(np.array([0.2, 0.7]), np.array([0, 1]), bins=10)
    assert (mean.tolist(), share.tolist(), count.tolist()) == ([0.2, 0.7], [0, 1], [1, 1])
