"""The fitted mix is the best there is, also where a fit from one start ends in a worse minimum."""

import numpy as np
import pytest

from lmsys_ray.ensemble.blend import blend
from lmsys_ray.evaluation.blend_fit import Mix, fit_mix
from lmsys_ray.evaluation.mix_search import LEAST_WEIGHT, TEMPERATURES, Search, tried_weights
from lmsys_ray.metrics import at_floor, log_loss

Problem = tuple[dict[str, np.ndarray], np.ndarray]


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def drawn_from(probabilities: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.minimum((random.random(len(probabilities))[:, None] > probabilities.cumsum(axis=1)).sum(axis=1), 2)


def problem(seed: int, rows: int) -> Problem:
    """Returns two to four members, a thousand times as sharp one as the other, some certain or with classes at 0."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3)) * random.uniform(0.5, 3)
    members = {}
    for number in range(random.integers(2, 5)):
        noise = random.normal(size=(rows, 3)) * random.uniform(0.1, 3)
        sharpness = np.exp(random.uniform(np.log(0.03), np.log(30)))
        member = softmax((logits * random.uniform(0, 1.2) + noise) * sharpness)
        if random.random() < 0.3:
            member[member < 10.0 ** random.uniform(-6, -1)] = 0
        members[f"m{number}"] = member / member.sum(axis=1, keepdims=True)
    return members, drawn_from(softmax(logits), random)


def least_on_a_grid(members: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """Returns the least log loss on a grid of weights and temperatures, worked out apart from the package."""
    levels = [0, *10.0 ** np.arange(-5, 0), 0.3, 1] if len(members) < 4 else [0, 0.0001, 0.01, 0.2, 1]
    weights = np.stack(np.meshgrid(*[levels] * len(members)), axis=-1).reshape(-1, len(members))
    weights = weights[weights.max(axis=1) == 1]
    chosen = np.tensordot(weights / weights.sum(axis=1, keepdims=True), np.stack(list(members.values())), 1)
    least = np.inf
    with np.errstate(divide="ignore"):
        logits = np.log(chosen)
    for temperature in (0.07, 0.2, 0.5, 0.8, 1, 1.4, 2, 3, 5, 8, 13, 19):
        scaled = logits / temperature
        label = scaled[:, np.arange(len(labels)), labels]
        losses = np.logaddexp.reduce(scaled, axis=2) - label
        least = min(least, np.minimum(losses, -np.log(1e-15)).mean(axis=1).min())
    return least


@pytest.mark.slow
def test_no_mix_on_a_grid_is_better_in_200_random_problems() -> None:
    missed = {}
    for seed in range(200):
        members, labels = problem(seed, rows=60)
        mix = fit_mix(members, labels)
        assert mix.settled
        gap = log_loss(blend(members, mix.weights, mix.temperature), labels) - least_on_a_grid(members, labels)
        if gap > 1e-6:
            missed[seed] = gap
    assert missed == {}


def test_a_class_that_one_member_alone_holds_possible_keeps_that_member() -> None:
    """One row of many, and none of those on which the minima are looked for, needs the other member."""
    rows = 30_000
    random = np.random.default_rng(0)
    truth = softmax(random.normal(size=(rows, 3)) * 2)
    labels = drawn_from(truth, random)
    part = Search(np.stack([truth]), np.arange(rows), None, None)._part(20_000).labels
    row = next(n for n in range(rows) if n not in set(part.tolist()))
    labels[row], truth[row] = 2, [0.6, 0.4, 0]
    members = {"truth": truth, "noise": softmax(random.normal(size=(rows, 3)))}
    mix = fit_mix(members, labels, temperature=1.0)
    assert 0 < mix.weights["noise"] < 0.01
    assert at_floor(mix.of(members), labels) == 0
    assert log_loss(mix.of(members), labels) < log_loss(truth, labels)


def test_rows_that_no_member_holds_possible_are_counted_and_do_not_bend_the_fit() -> None:
    random = np.random.default_rng(1)
    truth = softmax(random.normal(size=(2000, 3)))
    labels = drawn_from(truth, random)
    members = {"truth": truth, "noise": softmax(random.normal(size=(2000, 3)))}
    before = fit_mix(members, labels)
    impossible = {name: np.concatenate([member, np.tile([0.5, 0.5, 0], (7, 1))]) for name, member in members.items()}
    after = fit_mix(impossible, np.append(labels, [2] * 7))
    assert at_floor(after.of(impossible), np.append(labels, [2] * 7)) == 7
    assert after.temperature == pytest.approx(before.temperature, rel=1e-3)
    assert after.weights == pytest.approx(before.weights, abs=1e-3)


@pytest.mark.parametrize(("sharpened", "bound"), [(0.01, TEMPERATURES[1]), (100, TEMPERATURES[0])])
def test_a_temperature_beyond_the_bounds_ends_at_the_bound(sharpened: float, bound: float) -> None:
    random = np.random.default_rng(2)
    truth = softmax(random.normal(size=(3000, 3)) * 2)
    with np.errstate(divide="ignore"):
        member = softmax(np.log(truth) / sharpened)
    mix = fit_mix({"m": member}, drawn_from(truth, random))
    assert mix.temperature == bound


def test_a_temperature_beyond_5_is_found() -> None:
    random = np.random.default_rng(3)
    truth = softmax(random.normal(size=(20_000, 3)) * 2)
    assert fit_mix({"m": softmax(np.log(truth) * 12)}, drawn_from(truth, random)).temperature == pytest.approx(12, 0.05)


def test_a_weight_of_little_more_than_nothing_is_found() -> None:
    random = np.random.default_rng(4)
    flat, sharp = softmax(random.normal(size=(5000, 3)) / 2), softmax(random.normal(size=(5000, 3)) * 40)
    labels = drawn_from(0.99 * flat + 0.01 * sharp, random)
    members = {"flat": flat, "sharp": sharp}
    losses = {share: log_loss(blend(members, {"flat": 1 - share, "sharp": share}), labels) for share in (0, 0.01, 0.03)}
    mix = fit_mix(members, labels, temperature=1.0)
    assert 0.001 < mix.weights["sharp"] < 0.03
    assert log_loss(mix.of(members), labels) < min(losses.values())


@pytest.mark.parametrize("members", [1, 2, 4, 6, 9])
def test_tried_weights_hold_each_member_alone_and_all_together(members: int) -> None:
    tried = tried_weights(members)
    np.testing.assert_allclose(tried.sum(axis=1), 1)
    assert {tuple(row) for row in np.eye(members)} <= {tuple(row) for row in tried}
    assert (tried > LEAST_WEIGHT / 10).all(axis=1).any()
    assert len(tried) < 500


def test_a_mix_is_blended_as_the_scorer_blends() -> None:
    members, labels = problem(5, rows=40)
    mix = fit_mix(members, labels)
    np.testing.assert_array_equal(mix.of(members), blend(members, mix.weights, mix.temperature))
    assert Mix({"m0": 1.0}, 2.0).settled
