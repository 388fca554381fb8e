"""Geometric and stacked fits are optimal, recover what labels were drawn from, and bear zeros and certainty."""

import numpy as np
import pytest

from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.stacking import Stacking
from lmsys_ray.evaluation.blend_fit import fit_blend
from lmsys_ray.evaluation.log_fit import RIDGE, fit_geometric, fit_stacking
from lmsys_ray.evaluation.mix_search import TEMPERATURES
from lmsys_ray.metrics import log_loss


def noise(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([3, 3, 3], rows)


def drawn(probabilities: np.ndarray, seed: int) -> np.ndarray:
    until = np.random.default_rng(seed).random(len(probabilities))[:, None] > probabilities.cumsum(axis=1)
    return until.sum(axis=1).clip(0, 2)


TWO = {"first": noise(30_000, 1), "second": noise(30_000, 2)}


def test_geometric_weights_and_temperature_are_found() -> None:
    """Tolerances of four standard errors: coefficients of log-probabilities that vary by 0.6 on 30,000 rows."""
    true = Blend({"first": 0.8, "second": 0.2}, 0.6, "geometric")
    found = fit_geometric(TWO, drawn(true.of(TWO), 3))
    assert found.weights["first"] == pytest.approx(0.8, abs=0.04)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.temperature == pytest.approx(0.6, abs=0.03)


def test_stacked_coefficients_are_found() -> None:
    true = Stacking(-0.3, {"first": (1.2, 0.4), "second": (-0.2, 0.9)})
    found = fit_stacking(TWO, drawn(Blend({"first": 0.5, "second": 0.5}, 1.0, "stacked", true).of(TWO), 4)).stacking
    assert found is not None
    assert found.tie == pytest.approx(true.tie, abs=0.06)
    for name, pair in true.members.items():
        assert found.members[name] == pytest.approx(pair, abs=0.08)


def test_no_geometric_blend_nearby_is_better() -> None:
    members = {name: rows[:400] for name, rows in TWO.items()}
    labels = drawn(0.5 * members["first"] + 0.5 * noise(400, 5), 6)
    best = fit_geometric(members, labels)
    for first in np.clip([best.weights["first"] - 0.05, best.weights["first"] + 0.05], 0, 1):
        for temperature in (best.temperature * 0.9, best.temperature, best.temperature * 1.1):
            other = Blend({"first": float(first), "second": 1 - float(first)}, temperature, "geometric")
            assert log_loss(other.of(members), labels) > log_loss(best.of(members), labels) - 1e-9


def test_no_stacked_blend_nearby_is_better() -> None:
    members = {name: rows[:400] for name, rows in TWO.items()}
    labels = drawn(0.5 * members["first"] + 0.5 * noise(400, 5), 6)
    near = fit_geometric(members, labels)
    centre = np.append(np.repeat([near.weights[name] / near.temperature for name in members], 2), 0)

    def loss(x: np.ndarray) -> float:
        stacking = Stacking(x[4], {"first": (x[0], x[1]), "second": (x[2], x[3])})
        blended = Blend({"first": 0.5, "second": 0.5}, 1.0, "stacked", stacking).of(members)
        return log_loss(blended, labels) + RIDGE / 2 * float(((x - centre) ** 2).sum()) / len(labels)

    found = fit_stacking(members, labels).stacking
    assert found is not None
    x = np.array([*found.members["first"], *found.members["second"], found.tie])
    for place in range(5):
        for step in (-0.02, 0.02):
            assert loss(x + step * np.eye(5)[place]) > loss(x)


def test_stacking_stays_near_the_geometric_mean_where_rows_are_few() -> None:
    members = {name: rows[:12] for name, rows in TWO.items()}
    labels = np.arange(12) % 3
    near, found = fit_geometric(members, labels), fit_stacking(members, labels)
    assert np.abs(found.of(members) - near.of(members)).max() < 0.25


def test_a_member_of_noise_gets_no_weight() -> None:
    truth = noise(4_000, 7)
    found = fit_geometric({"truth": truth, "noise": noise(4_000, 8)}, drawn(truth, 9))
    assert found.weights["truth"] > 0.9
    assert found.temperature == pytest.approx(1, abs=0.15)


def test_members_that_mislead_give_equal_probabilities() -> None:
    truth = noise(2_000, 7)
    labels = drawn(truth[:, [1, 2, 0]] ** 2 / (truth**2).sum(axis=1, keepdims=True), 9)
    wrong = {"m": np.roll(truth, 1, axis=1)}
    found = fit_geometric(wrong, labels)
    assert TEMPERATURES[0] <= found.temperature <= TEMPERATURES[1]
    assert found.weights == {"m": 1.0}


@pytest.mark.filterwarnings("error")
def test_a_member_without_ties_is_left_out_of_a_geometric_blend_and_of_use_in_a_stacked_one() -> None:
    truth = noise(3_000, 10)
    labels = drawn(truth, 11)
    sides = truth[:, :2] / truth[:, :2].sum(axis=1, keepdims=True)
    members = {"all": noise(3_000, 12), "sides": np.column_stack([sides, np.zeros(3_000)])}
    geometric, stacked = fit_geometric(members, labels), fit_stacking(members, labels)
    assert geometric.weights == {"all": 1.0, "sides": 0.0}
    assert log_loss(stacked.of(members), labels) < log_loss(geometric.of(members), labels) - 0.05


@pytest.mark.parametrize("method", ["linear", "geometric", "stacked"])
def test_one_member_is_enough(method: str) -> None:
    truth = noise(1_000, 13)
    found = fit_blend(method, {"only": truth}, drawn(truth, 14))  # type: ignore[arg-type]
    assert found.method == method
    assert dict(found.weights) == {"only": 1.0}
    assert np.abs(found.of({"only": truth}) - truth).mean() < 0.05
