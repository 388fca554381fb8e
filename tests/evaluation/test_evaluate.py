"""An evaluation finds what was put into a run: who is better, where, by how much, and which side is favoured."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from lmsys_ray.config import Settings
from lmsys_ray.evaluation.evaluate import (
    EVERYTHING,
    FITTED,
    IN_USE,
    NOTHING,
    PRIOR,
    SMALLEST_SLICE,
    Evaluation,
    evaluate,
)
from lmsys_ray.evaluation.joined import join
from lmsys_ray.evaluation.labels import read_labels
from lmsys_ray.evaluation.position import MEASURES, position_bias
from lmsys_ray.evaluation.report import as_json, blend_settings, verdict
from lmsys_ray.metrics import log_loss
from tests.evaluation.runs import blurred, drawn, make_run, write_labels

ROWS = 600
RARE = 8


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """A blend that leans on the worse of two members, over prompts of two rows each, five of them rejected."""
    folder = tmp_path_factory.mktemp("evaluation")
    truth, labels = drawn(ROWS)
    members = {"good": blurred(truth, 0.1, 1), "poor": blurred(truth, 0.9, 2)}
    prompts = [f"вопрос {n // 2}" if n < RARE else f"question {n // 2}" for n in range(ROWS)]
    prompts[-5:] = [""] * 5
    run, settings = make_run(folder, prompts, members, {"good": 0.1, "poor": 0.9}, temperature=1.5)
    write_labels(folder / "labels.csv", labels, sources=["web" if n % 3 else "books" for n in range(ROWS)])
    return evaluate(join(run, settings, read_labels(str(folder / "labels.csv"))), settings)


def test_counts_rows_and_prompts(evaluation: Evaluation) -> None:
    assert evaluation.counts.judged == ROWS - 5
    assert evaluation.counts.rejected == 5
    assert evaluation.prompts == 298
    assert evaluation.rejected_log_loss == pytest.approx(1.1, abs=0.1)


def test_members_are_judged_beside_the_prior_and_both_blends(evaluation: Evaluation) -> None:
    assert list(evaluation.overall) == [PRIOR, "good", "poor", IN_USE, FITTED]
    losses = {name: estimate.values[0] for name, estimate in evaluation.overall.items()}
    assert losses["good"] < losses[IN_USE] < losses[PRIOR]
    assert losses[FITTED] < losses[IN_USE]


def test_the_fit_turns_to_the_better_member_and_is_judged_out_of_fold(evaluation: Evaluation) -> None:
    fit = evaluation.fits[EVERYTHING]
    assert fit.mix.weights["good"] > 0.7
    assert evaluation.fits["temperature"].mix.weights == evaluation.fits[NOTHING].mix.weights
    assert evaluation.fits["weights"].mix.temperature == 1.5
    assert verdict(evaluation, FITTED, IN_USE) == "better"
    members = {name: evaluation.predictions[name] for name in ("good", "poor")}
    fitted_on_the_same_rows = log_loss(fit.mix.of(members), evaluation.labels)
    assert fit.estimate.values[0] > fitted_on_the_same_rows


def test_margins_are_paired_and_tell_better_from_worse(evaluation: Evaluation) -> None:
    assert verdict(evaluation, IN_USE, "good") == "worse"
    margin = evaluation.margins[IN_USE, "good"]
    assert margin.values[0] == pytest.approx(
        evaluation.overall[IN_USE].values[0] - evaluation.overall["good"].values[0]
    )
    assert np.ptp(margin.intervals()[:, 0]) < np.ptp(evaluation.overall["good"].intervals()[:, 0]) * 1.5


def test_slices_are_judged_by_themselves_or_counted_when_small(evaluation: Evaluation) -> None:
    sources, scripts = evaluation.slices["source"], evaluation.slices["script"]
    assert {name: part.rows for name, part in sources.items()} == {"web": 396, "books": 199}
    assert scripts["Cyrillic"].rows == RARE < SMALLEST_SLICE
    assert not scripts["Cyrillic"].estimates
    total = sum(part.rows * part.estimates["good"].values[0] for part in sources.values())
    assert total / evaluation.counts.judged == pytest.approx(evaluation.overall["good"].values[0])


def test_json_holds_every_figure_within_its_interval(evaluation: Evaluation) -> None:
    report = as_json(evaluation)
    for name in evaluation.overall:
        figure = report["overall"][name]["log_loss"]
        assert figure["low"] < figure["value"] < figure["high"]
    assert report["slices"]["script"]["Cyrillic"] == {"rows": RARE, "prompts": RARE // 2, "metrics": None}
    assert report["fits"][EVERYTHING]["over_blend_in_use"]["log_loss"]["high"] < 0
    assert report["rejected"]["rows"] == 5


def test_blend_settings_are_complete(tmp_path: Path) -> None:
    truth, labels = drawn(100)
    weights = {"good": 0.5, "poor": 0.5, "absent": 0.0}
    members = {"good": truth, "poor": blurred(truth, 0.9, 2)}
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(100)], members, weights)
    write_labels(tmp_path / "labels.csv", labels)
    mix = evaluate(join(run, settings, read_labels(str(tmp_path / "labels.csv"))), settings).fits[EVERYTHING].mix
    again = Settings.model_validate(yaml.safe_load(blend_settings(settings, mix, "elsewhere")))
    assert again.output == "elsewhere"
    assert again.temperature == mix.temperature
    assert {name: member.weight for name, member in again.members.items()} == {
        "good": pytest.approx(mix.weights["good"], abs=1e-4),
        "poor": pytest.approx(mix.weights["poor"], abs=1e-4),
        "absent": 0,
    }
    same = {"members": settings.members, "output": settings.output, "temperature": 1.0}
    assert again.model_copy(update=same) == settings


def test_a_side_that_gains_by_standing_first_is_found() -> None:
    plain = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2]])
    swapped = np.array([[0.4, 0.5, 0.1], [0.1, 0.7, 0.2]])
    measures = dict(zip(MEASURES, position_bias(plain, swapped, np.array([0, 1]), np.arange(2)).values, strict=True))
    assert measures["first_gain"] == pytest.approx(0.2)
    assert measures["change"] == pytest.approx(0.2)
    assert measures["flips"] == 0.5
    assert measures["log_loss_plain"] == pytest.approx(-np.log(0.6 * 0.5) / 2)
    assert measures["log_loss_swapped"] == pytest.approx(-np.log(0.4 * 0.7) / 2)
    assert measures["log_loss_both"] == pytest.approx(-np.log(0.5 * 0.6) / 2)


def test_equal_orders_have_no_bias() -> None:
    probabilities, labels = drawn(50)
    estimate = position_bias(probabilities, probabilities, labels, np.arange(50))
    np.testing.assert_array_equal(estimate.values[:3], 0)
    np.testing.assert_array_equal(estimate.intervals()[:, :3], 0)
