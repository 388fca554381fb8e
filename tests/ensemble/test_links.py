"""Links: probabilities as the papers write them, and parameters found with and without labels."""

from decimal import Decimal, localcontext
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.ensemble.links import LARGEST_TIE, SLOPES, Link, LinkName, agreement, fit_link, spread, without_labels

NAMES: tuple[LinkName, ...] = get_args(LinkName)
BOTH = pytest.mark.parametrize("name", NAMES)
ANY = np.random.default_rng(5).normal(0.3, 2, 400).astype(np.float32)
EXTREME = np.array([1e30, -1e30, 0, 1e-30, 3.4e38, -3.4e38], np.float32)


def as_written(name: LinkName, difference: float, scale: float, tie: float) -> list[float]:
    """The formulas of the papers, from two strengths exp(d / 2) and exp(-d / 2), in decimals of 400 digits."""
    with localcontext() as context:
        context.prec = 400
        half = Decimal(difference) / Decimal(scale) / 2
        a, b = half.exp(), (-half).exp()
        if name == "davidson":
            total = a + b + Decimal(tie)  # nu times the root of a b, which is 1
            return [float(a / total), float(b / total), float(Decimal(tie) / total)]
        theta = Decimal(tie).exp()
        won, lost = a / (a + theta * b), b / (b + theta * a)
        return [float(won), float(lost), float((theta * theta - 1) * a * b / ((a + theta * b) * (b + theta * a)))]


def drawn(link: Link, differences: np.ndarray, seed: int) -> np.ndarray:
    """Labels drawn from a link."""
    until = np.random.default_rng(seed).random(len(differences))[:, None] > link.probabilities(differences).cumsum(1)
    return until.sum(axis=1).clip(0, 2)


@BOTH
@given(st.floats(-300, 300), st.floats(0.2, 50), st.one_of(st.just(0.0), st.floats(1e-6, 30)))
def test_probabilities_are_those_of_the_paper(name: LinkName, difference: float, scale: float, tie: float) -> None:
    found = Link(name, scale, tie).probabilities(np.array([difference]))
    np.testing.assert_allclose(found[0], as_written(name, difference, scale, tie), rtol=1e-11, atol=1e-300)


@BOTH
def test_a_smaller_probability_than_floats_have_keeps_its_logarithm(name: LinkName) -> None:
    logs = Link(name, 1.0, 0.5).log_probabilities(np.array([4000.0]))
    assert logs[0, 0] == pytest.approx(0, abs=1e-12)
    assert logs[0, 1] == pytest.approx(-4000, abs=1)
    assert logs[0, 2] == pytest.approx(-2000 if name == "davidson" else -4000, abs=1)


@BOTH
@pytest.mark.parametrize("tie", [0.0, 0.7])
def test_exchanging_the_responses_exchanges_their_probabilities(name: LinkName, tie: float) -> None:
    link = Link(name, 1.3, tie)
    np.testing.assert_allclose(link.probabilities(-ANY), link.probabilities(ANY)[:, [1, 0, 2]], rtol=1e-12)


@BOTH
def test_without_ties_both_are_bradley_and_terry(name: LinkName) -> None:
    won = 1 / (1 + np.exp(-ANY.astype(np.float64) / 1.3))
    expected = np.column_stack([won, 1 - won, np.zeros(len(ANY))])
    np.testing.assert_allclose(Link(name, 1.3, 0.0).probabilities(ANY), expected, rtol=1e-12)


@BOTH
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tie", [0.0, 1e-300, 0.5, 1e3, 1e300])
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30])
def test_any_score_of_float32_gives_probabilities(name: LinkName, scale: float, tie: float) -> None:
    found = Link(name, scale, tie).probabilities(EXTREME)
    assert found.dtype == np.float64
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)


@BOTH
@pytest.mark.parametrize("share", [1e-6, 0.05, 0.31, 0.9])
def test_without_labels_ties_have_their_share(name: LinkName, share: float) -> None:
    link = without_labels(name, ANY, share)
    assert link.probabilities(ANY)[:, 2].mean() == pytest.approx(share, rel=1e-6)
    assert np.sqrt(np.mean((ANY / link.scale) ** 2)) == pytest.approx(1)


@BOTH
def test_what_is_given_is_kept(name: LinkName) -> None:
    held = without_labels(name, ANY, 0.2, scale=5.0)
    assert held.scale == 5.0
    assert held.probabilities(ANY)[:, 2].mean() == pytest.approx(0.2)
    assert without_labels(name, ANY, 0.2, tie=0.4) == Link(name, spread(ANY), 0.4)
    labels = drawn(Link(name, 2.0, 0.8), ANY, seed=1)
    assert fit_link(name, ANY, labels, scale=5.0).scale == 5.0
    assert fit_link(name, ANY, labels, tie=0.4).tie == 0.4
    assert fit_link(name, ANY, labels, 5.0, 0.4) == Link(name, 5.0, 0.4)


@BOTH
@pytest.mark.filterwarnings("error")
def test_differences_that_say_nothing_have_an_answer(name: LinkName) -> None:
    for equal in (np.zeros(0), np.zeros(4, np.float32)):
        link = without_labels(name, equal, 0.25)
        assert link.scale == 1
        assert link.probabilities(np.zeros(1))[0, 2] == pytest.approx(0.25)
    assert without_labels(name, np.full(4, -7.0), 0.25).scale == pytest.approx(7)
    assert without_labels(name, ANY, 0.0).tie == 0
    assert without_labels(name, ANY, 1.0).probabilities(ANY)[:, 2].mean() == pytest.approx(1, abs=1e-8)


@BOTH
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("share", [0.0, 1e-12, 0.3, 1.0])
@pytest.mark.parametrize("scale", [None, 1.0, 1e-30])
def test_extreme_differences_have_a_finite_tie(name: LinkName, scale: float | None, share: float) -> None:
    link = without_labels(name, EXTREME, share, scale)
    assert np.isfinite(link.scale)
    assert 0 <= link.tie <= 1e80 or (name == "davidson" and link.tie == pytest.approx(LARGEST_TIE))
    np.testing.assert_allclose(link.probabilities(EXTREME).sum(axis=1), 1, rtol=1e-14)


@BOTH
@pytest.mark.parametrize(("scale", "tie"), [(1.0, 0.9), (0.02, 0.3), (40.0, 2.5)])
def test_labels_give_back_the_parameters_they_were_drawn_from(name: LinkName, scale: float, tie: float) -> None:
    """Within four standard errors, those that the parameters have over refits on 30 samples of labels."""
    true = Link(name, scale, tie)
    differences = np.random.default_rng(2).normal(0.1, 1.2, 3_000) * scale
    found = [fit_link(name, differences, drawn(true, differences, seed)) for seed in range(30)]
    logs = np.log([[link.scale, link.tie] for link in found])
    errors = logs.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (errors < 0.02).all()
    assert (np.abs(logs.mean(axis=0) - np.log([scale, tie])) < 4 * errors).all()


@BOTH
@pytest.mark.parametrize("held", [{}, {"scale": 1.4}, {"tie": 0.5}])
def test_no_parameters_nearby_are_likelier(name: LinkName, held: dict[str, float]) -> None:
    labels = drawn(Link(name, 2.0, 0.8), ANY, seed=3)
    weights = np.random.default_rng(4).uniform(0.1, 3, len(ANY))
    best = fit_link(name, ANY, labels, row_weights=weights, **held)

    def loss(link: Link) -> float:
        return -float(np.average(np.log(link.probabilities(ANY)[np.arange(len(ANY)), labels]), weights=weights))

    for step in (0.97, 1.03):
        if "scale" not in held:
            assert loss(Link(name, best.scale * step, best.tie)) > loss(best)
        if "tie" not in held:
            assert loss(Link(name, best.scale, best.tie * step)) > loss(best)


@BOTH
def test_a_weight_counts_as_so_many_rows(name: LinkName) -> None:
    labels = drawn(Link(name, 2.0, 0.8), ANY, seed=3)
    times = np.random.default_rng(4).integers(0, 4, len(ANY))
    repeated = fit_link(name, ANY.repeat(times), labels.repeat(times))
    weighted = fit_link(name, ANY, labels, row_weights=times.astype(float))
    assert [weighted.scale, weighted.tie] == pytest.approx([repeated.scale, repeated.tie], rel=1e-4)


@BOTH
def test_reversed_scores_are_told_and_say_nothing(name: LinkName) -> None:
    labels = drawn(Link(name, 2.0, 0.8), ANY, seed=3)
    assert agreement(ANY, labels) > 0
    assert agreement(-ANY, labels) == -agreement(ANY, labels)
    flat = fit_link(name, -ANY, labels)
    assert flat.scale == pytest.approx(spread(ANY) / SLOPES[0])
    assert flat.probabilities(ANY).std(axis=0).max() < 1e-3
    np.testing.assert_allclose(flat.probabilities(ANY).mean(axis=0)[2], (labels == 2).mean(), atol=1e-4)


@BOTH
def test_scores_that_separate_the_labels_are_as_steep_as_may_be(name: LinkName) -> None:
    labels = (ANY < 0).astype(int)
    found = fit_link(name, ANY, labels)
    assert found.tie == 0
    assert 1 / SLOPES[1] <= found.scale / spread(ANY) < 0.05


@BOTH
def test_without_tied_labels_there_are_no_ties(name: LinkName) -> None:
    labels = drawn(Link(name, 2.0, 0.0), ANY, seed=3)
    found = fit_link(name, ANY, labels)
    assert found.tie == 0
    assert found.scale == pytest.approx(2.0, rel=0.35)
