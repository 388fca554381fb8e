"""Join and blend: shares of members add up, and scores that belong to other rows are refused."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.data.conversations import SHARD
from lmsys_ray.ensemble.blend import aligned, blend, normalise, with_prior
from lmsys_ray.errors import RunError
from lmsys_ray.members.orders import both_orders
from lmsys_ray.members.protocol import CONVERSATIONS, Scores
from lmsys_ray.run_directory.score_checks import misfit
from lmsys_ray.scoring.score_tables import scorable, score_table

GOOD = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])


def shard(rejected: list[bool]) -> pa.Table:
    rows = [
        {"row": 7 + n, "id": f"i{n}", "prompt": "p", "response_a": "a", "response_b": "b", "rejected": bad}
        for n, bad in enumerate(rejected)
    ]
    return pa.Table.from_pylist(rows, schema=SHARD)


def test_scores_are_joined_by_row() -> None:
    table = shard([False, True, False])
    scores = score_table(scorable(table)["row"], Scores(GOOD), swap=False)
    assert scores["row"].to_pylist() == [7, 9]
    np.testing.assert_allclose(aligned(table, scores, "x"), GOOD, rtol=1e-6)


@pytest.mark.parametrize(
    "damage",
    [
        lambda scores: scores.slice(1),
        lambda scores: scores.take([1, 0]),
        lambda scores: pa.concat_tables([scores, scores.slice(1)]),
        lambda scores: scores.set_column(0, "row", pa.array([7, 8])),
        lambda scores: scores.set_column(1, "a", pa.array([0.1, float("nan")])),
        lambda scores: scores.set_column(1, "a", pa.array([0.1, -0.1])),
    ],
)
def test_scores_of_other_rows_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    table = shard([False, True, False])
    with pytest.raises(RunError, match=r"scores/x/00003\.parquet"):
        aligned(table, damage(score_table(scorable(table)["row"], Scores(GOOD), swap=False)), "scores/x/00003.parquet")


def test_swapped_order_has_its_classes_put_back() -> None:
    conversations = pa.table({"row": [4], "id": ["i"], "prompt": ["p"], "response_a": ["x"], "response_b": ["y"]})
    twice = both_orders(conversations.cast(CONVERSATIONS))
    assert twice.select(["row", "response_a", "response_b"]).to_pylist() == [
        {"row": 4, "response_a": "x", "response_b": "y"},
        {"row": 4, "response_a": "y", "response_b": "x"},
    ]
    # As A/B the first response wins by 0.6 to 0.3; as B/A, now second, by 0.5 to 0.1.
    table = score_table(
        twice["row"],
        Scores(np.array([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4]]), tokens=np.array([10, 12])),
        swap=True,
    )
    assert table.num_rows == 1
    means = [table[name][0].as_py() for name in ("a", "b", "tie", "a_swapped", "b_plain", "tokens")]
    assert means == pytest.approx([0.55, 0.2, 0.25, 0.5, 0.3, 22])


def test_rejected_rows_get_the_prior() -> None:
    filled = with_prior(shard([True, False, True, False]), GOOD, (0.3, 0.3, 0.4))
    np.testing.assert_array_equal(filled, [[0.3, 0.3, 0.4], GOOD[0], [0.3, 0.3, 0.4], GOOD[1]])


def test_temperature_moves_towards_equal_shares() -> None:
    warm, cold = (blend({"m": GOOD}, {"m": 1.0}, temperature) for temperature in (2.0, 0.5))
    assert (warm.max(axis=1) < GOOD.max(axis=1)).all()
    assert (cold.max(axis=1) > GOOD.max(axis=1)).all()
    np.testing.assert_allclose(warm[0], np.sqrt(GOOD[0]) / np.sqrt(GOOD[0]).sum())


def test_a_temperature_near_0_leaves_the_likeliest_class_alone() -> None:
    rows = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(blend({"m": rows}, {"m": 1.0}, 1e-4), [[1, 0, 0]] * 3, atol=1e-12)


def test_a_class_of_probability_0_stays_there_at_any_temperature() -> None:
    rows = np.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0]])
    for temperature in (0.2, 1.0, 20.0):
        np.testing.assert_array_equal(blend({"m": rows}, {"m": 1.0}, temperature) == 0, rows == 0)


PROBABILITIES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda row: np.array([row]) / sum(row))


@given(st.lists(st.tuples(PROBABILITIES, st.floats(0.01, 5)), min_size=1, max_size=4))
def test_blend_is_the_weighted_mean(members: list[tuple[np.ndarray, float]]) -> None:
    weights = normalise({str(n): weight for n, (_, weight) in enumerate(members)})
    assert sum(weights.values()) == pytest.approx(1)
    mixed = blend({str(n): row for n, (row, _) in enumerate(members)}, weights)
    np.testing.assert_allclose(mixed, np.average([row for row, _ in members], axis=0, weights=[w for _, w in members]))
    assert mixed.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("weights", [(1e308, 1e308), (5e-324, 5e-324), (1.7e308, 1.7e308)])
def test_weights_may_be_as_large_or_small_as_numbers_are(weights: tuple[float, float]) -> None:
    assert normalise(dict(zip("ab", weights, strict=True))) == {"a": 0.5, "b": 0.5}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 0.001, 1e300])
def test_any_temperature_gives_probabilities(temperature: float) -> None:
    rows = np.random.default_rng(1).dirichlet([1, 1, 1], 100)
    blended = blend({"m": rows}, {"m": 1.0}, temperature)
    np.testing.assert_allclose(blended.sum(axis=1), 1)
    if temperature < 1e-10:
        np.testing.assert_array_equal(blended.argmax(axis=1), rows.argmax(axis=1))


def test_values_of_another_sum_are_refused() -> None:
    table = shard([False, True, False])
    for total, refused in ((0.53, True), (1.001, True), (1.00005, False)):
        scores = score_table(scorable(table)["row"], Scores(GOOD * total), swap=False)
        assert (misfit(table, scores) is not None) == refused
