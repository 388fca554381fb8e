"""Fitted mixes are optimal where the optimum is known, and are judged on rows they have not seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize_scalar

from lmsys_ray.evaluation.blend_fit import Mix, fit_mix
from lmsys_ray.evaluation.cross_fitting import cross_fitted
from lmsys_ray.evaluation.mix_search import TEMPERATURES, loss_and_slope
from lmsys_ray.metrics import log_loss


def world(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the true probabilities [rows, 3] and labels drawn from them."""
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet([1, 1, 0.6], rows)
    labels = (generator.random(rows)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    return truth, np.minimum(labels, 2)


def noise(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([3, 3, 3], rows)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    scaled = probabilities ** (1 / temperature)
    return scaled / scaled.sum(axis=1, keepdims=True)


def test_weights_with_which_the_truth_was_mixed_are_found() -> None:
    first, second = noise(20000, 1), noise(20000, 2)
    truth = 0.8 * first + 0.2 * second
    labels = (np.random.default_rng(3).random(20000)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    mix = fit_mix({"first": first, "second": second}, labels, temperature=1.0)
    assert mix.weights["first"] == pytest.approx(0.8, abs=0.06)
    assert sum(mix.weights.values()) == pytest.approx(1)
    assert mix.temperature == 1.0


def test_a_member_of_noise_gets_no_weight() -> None:
    truth, labels = world(5000, 4)
    mix = fit_mix({"truth": truth, "noise": noise(5000, 5)}, labels)
    assert mix.weights["truth"] > 0.95
    assert mix.temperature == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("sharpened", [0.5, 2.0])
def test_temperature_undoes_what_was_sharpened(sharpened: float) -> None:
    truth, labels = world(20000, 6)
    mix = fit_mix({"only": tempered(truth, sharpened)}, labels)
    assert mix.temperature == pytest.approx(1 / sharpened, rel=0.05)
    assert mix.weights == {"only": 1.0}


def test_temperature_for_held_weights_is_that_of_a_line_search() -> None:
    _, labels = world(500, 7)
    members = {"a": noise(500, 8), "b": noise(500, 9)}
    held = {"a": 0.3, "b": 0.7}
    mix = fit_mix(members, labels, weights=held)
    best = minimize_scalar(lambda t: log_loss(Mix(held, t).of(members), labels), bounds=TEMPERATURES, method="bounded")
    assert mix.weights == held
    assert mix.temperature == pytest.approx(best.x, abs=2e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_no_other_mix_is_better(seed: int, count: int) -> None:
    truth, labels = world(300, seed)
    generator = np.random.default_rng(seed)
    shares = generator.random(count)
    members = {f"m{i}": s * truth + (1 - s) * noise(300, seed + i + 1) for i, s in enumerate(shares)}
    mix = fit_mix(members, labels)
    found = log_loss(mix.of(members), labels)
    for weights in [*np.eye(count), *generator.dirichlet(np.ones(count), 10)]:
        other = Mix(dict(zip(members, weights.tolist(), strict=True)), float(generator.uniform(0.5, 2)))
        assert found <= log_loss(other.of(members), labels) + 1e-5


def test_gradient_is_that_of_the_loss() -> None:
    _, labels = world(60, 10)
    stacked = np.stack([noise(60, 11), noise(60, 12), noise(60, 13)])
    stacked[0, :9, 0] = stacked[:, 7, 1] = 0
    for x in ([-1.6, -1.2, -0.7, 0.0], [-0.5, -1.2, -8.0, 0.5], [-0.7, -0.9, -0.9, -2.0]):
        numeric = approx_fprime(np.array(x), lambda x: loss_and_slope(x, stacked, labels)[0], 1e-7)
        np.testing.assert_allclose(loss_and_slope(np.array(x), stacked, labels)[1], numeric, atol=1e-5)


def test_rows_of_a_fold_have_no_part_in_their_own_mix() -> None:
    truth, labels = world(200, 14)
    members = {"truth": truth, "noise": noise(200, 15)}
    folds = np.arange(200) % 4
    before = cross_fitted(members, labels, folds, fit_mix)
    changed = labels.copy()
    changed[folds == 2] = (changed[folds == 2] + 1) % 3
    after = cross_fitted(members, changed, folds, fit_mix)
    np.testing.assert_array_equal(after[folds == 2], before[folds == 2])
    assert (after[folds != 2] != before[folds != 2]).any()


def test_certain_and_wrong_members_do_not_stop_the_fit() -> None:
    truth, labels = world(400, 16)
    certain = np.eye(3)[(labels + 1) % 3]
    mix = fit_mix({"certain": certain, "truth": truth}, labels)
    assert mix.weights["truth"] > 0.95
