"""Temperature and share of the prior: found where they are known, and never worse than none."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.evaluation.finish_fit import finished, loss_and_slope
from lmsys_ray.metrics import log_loss

PRIOR = (0.45, 0.35, 0.2)
ONLY = Blend({"m": 1.0})


def drawn(probabilities: np.ndarray, seed: int) -> np.ndarray:
    until = np.random.default_rng(seed).random(len(probabilities))[:, None] > probabilities.cumsum(axis=1)
    return until.sum(axis=1).clip(0, 2)


def sharp(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.4, 0.4, 0.4], rows)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.2), (2.0, 0.1), (0.7, 0.0)])
def test_what_labels_were_drawn_with_is_found(temperature: float, share: float) -> None:
    """Within four standard errors, which for 40,000 rows are below 0.015 of either."""
    members = {"m": sharp(40_000, 1)}
    true = Blend({"m": 1.0}, temperature, "linear", None, share, PRIOR)
    found = finished(ONLY, members, drawn(true.of(members), 2), PRIOR)
    assert found.temperature == pytest.approx(temperature, abs=0.06)
    assert found.prior_weight == pytest.approx(share, abs=0.03)
    assert found.prior == PRIOR


@pytest.mark.parametrize("method", ["linear", "geometric"])
def test_no_other_temperature_or_share_is_better(method: str) -> None:
    members = {"m": sharp(300, 3), "n": sharp(300, 4)}
    labels = drawn(0.4 * members["m"] + 0.6 * sharp(300, 5), 6)
    found = finished(Blend({"m": 0.6, "n": 0.4}, 1.0, method), members, labels, PRIOR)  # type: ignore[arg-type]
    best = log_loss(found.of(members), labels)
    for temperature in np.geomspace(0.06, 19, 40):
        for share in np.linspace(0, 0.98, 40):
            other = Blend(found.weights, float(temperature), found.method, None, float(share), PRIOR)
            assert best <= log_loss(other.of(members), labels) + 1e-7


def test_gradient_is_that_of_the_loss() -> None:
    labels = np.arange(60) % 3
    logits = np.log(sharp(60, 7))
    logits[:7, 1] = -np.inf
    for x in ([0.0, 0.1], [0.8, 0.05], [-1.0, 0.6]):
        numeric = approx_fprime(np.array(x), lambda x: loss_and_slope(x, logits, labels, PRIOR)[0], 1e-7)
        np.testing.assert_allclose(loss_and_slope(np.array(x), logits, labels, PRIOR)[1], numeric, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_certain_member_that_errs_gets_a_share_of_the_prior() -> None:
    labels = np.arange(300) % 3
    certain = np.eye(3)[np.where(np.arange(300) < 15, (labels + 1) % 3, labels)]
    found = finished(ONLY, {"m": certain}, labels, PRIOR)
    assert found.prior_weight == pytest.approx(0.05 / (1 - 1 / 3), abs=0.02)


def test_a_true_member_gets_none() -> None:
    members = {"m": np.random.default_rng(8).dirichlet([2, 2, 2], 20_000)}
    found = finished(ONLY, members, drawn(members["m"], 9), PRIOR)
    assert found.prior_weight < 0.03
    assert found.temperature == pytest.approx(1, abs=0.06)
