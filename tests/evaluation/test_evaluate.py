"""An evaluation finds what was put into a run: who is better, where, by how much, and which side is favoured."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmsys_ray.data.labels import read_labels
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.stacking import Stacking
from lmsys_ray.evaluation.console import show
from lmsys_ray.evaluation.evaluate import (
    EVERYTHING,
    FITTED,
    FITTED_METHODS,
    IN_USE,
    NOTHING,
    PRIOR,
    SMALLEST_SLICE,
    Evaluation,
    evaluate,
)
from lmsys_ray.evaluation.labelled_scores import join
from lmsys_ray.evaluation.position_bias import MEASURES, position_bias
from lmsys_ray.evaluation.report import as_json, blend_settings, write_report
from lmsys_ray.evaluation.tables import in_words
from lmsys_ray.metrics import log_loss
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.settings import Settings
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
    assert list(evaluation.overall) == [PRIOR, "good", "poor", IN_USE, *FITTED_METHODS.values()]
    losses = {name: estimate.values[0] for name, estimate in evaluation.overall.items()}
    assert losses["good"] < losses[IN_USE] < losses[PRIOR]
    assert max(losses[name] for name in FITTED_METHODS.values()) < losses[IN_USE]


def test_the_fit_turns_to_the_better_member_and_is_judged_out_of_fold(evaluation: Evaluation) -> None:
    fit = evaluation.fits[EVERYTHING]
    assert fit.blend.weights["good"] > 0.7
    assert evaluation.fits["temperature"].blend.weights == evaluation.fits[NOTHING].blend.weights
    assert evaluation.fits["weights"].blend.temperature == 1.5
    assert in_words(evaluation.margins[FITTED, IN_USE]) == "better"
    members = {name: evaluation.predictions[name] for name in ("good", "poor")}
    fitted_on_the_same_rows = log_loss(fit.blend.of(members), evaluation.labels)
    assert fit.estimate.values[0] > fitted_on_the_same_rows


def test_the_blend_in_use_is_the_one_that_settings_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, labels = drawn(200)
    members = {"good": blurred(truth, 0.2, 1), "poor": blurred(truth, 0.9, 2)}
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(200)], members, {"good": 0.5, "poor": 0.5})
    write_labels(tmp_path / "labels.csv", labels)
    joined = join(run, settings, read_labels(str(tmp_path / "labels.csv")))
    coefficients = {name: {"preference": 0.7, "tie": 0.2} for name in members}
    for changes, expected in (
        (
            {"blend": "geometric", "temperature": 2.0, "prior_weight": 0.1},
            Blend({"good": 0.5, "poor": 0.5}, 2.0, "geometric", None, 0.1, settings.prior),
        ),
        (
            {"blend": "stacked", "stacking": {"tie": 0.3, "members": coefficients}},
            Blend({"good": 1, "poor": 1}, 1.0, "stacked", Stacking(0.3, dict.fromkeys(members, (0.7, 0.2)))),
        ),
    ):
        changed = Settings.model_validate(settings.model_dump() | changes)
        judged = evaluate(joined, changed)
        np.testing.assert_allclose(judged.predictions[IN_USE], expected.of(joined.members))
        assert list(judged.fits) == [NOTHING, EVERYTHING, "geometric", "stacked"]
        assert as_json(judged)["fits"][NOTHING]["blend"] == changes["blend"]
        show(judged, tmp_path)
        assert f"blend in use: {changes['blend']} " in capsys.readouterr().out
        again = Settings.model_validate(yaml.safe_load(blend_settings(changed, judged.fits[EVERYTHING].blend, "x")))
        np.testing.assert_allclose(
            again.blending().of(joined.members), judged.fits[EVERYTHING].blend.of(joined.members), rtol=1e-5
        )


def test_margins_are_paired_and_tell_better_from_worse(evaluation: Evaluation) -> None:
    assert in_words(evaluation.margins[IN_USE, "good"]) == "worse"
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
    mix = evaluate(join(run, settings, read_labels(str(tmp_path / "labels.csv"))), settings).fits[EVERYTHING].blend
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


@pytest.fixture(scope="module")
def single_tie(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation, Settings]:
    """A thousand labels of which one is a tie."""
    folder = tmp_path_factory.mktemp("single_tie")
    truth, labels = drawn(1000)
    labels[labels == 2] = 0
    labels[17] = 2
    members = {"good": blurred(truth, 0.1, 1), "poor": blurred(truth, 0.9, 2)}
    run, settings = make_run(folder, [f"p{n}" for n in range(1000)], members, {"good": 0.5, "poor": 0.5})
    write_labels(folder / "labels.csv", labels)
    return folder, evaluate(join(run, settings, read_labels(str(folder / "labels.csv"))), settings), settings


def test_a_class_of_one_row_leaves_out_what_needs_folds_and_nothing_else(
    single_tie: tuple[Path, Evaluation, Settings],
) -> None:
    folder, judged, settings = single_tie
    assert judged.unfitted is not None
    assert "class tie has 1 labelled row" in judged.unfitted
    assert list(judged.overall) == [PRIOR, "good", "poor", IN_USE]
    assert list(judged.fits) == [NOTHING]
    assert in_words(judged.margins[IN_USE, "poor"]) == "better"
    out = folder / "evaluation"
    out.mkdir()
    (out / "blend.yaml").write_text("left by an earlier evaluation")
    write_report(judged, settings, RunDirectory(settings.output), out)
    assert {file.name for file in out.iterdir()} == {"evaluation.json", "reliability.png"}
    assert json.loads((out / "evaluation.json").read_text())["unfitted"] == judged.unfitted


def test_what_is_left_out_is_said_in_a_line(
    single_tie: tuple[Path, Evaluation, Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    show(single_tie[1], single_tie[0])
    shown = capsys.readouterr().out
    assert "no blend was fitted: class tie has 1 labelled row" in shown
    assert "fitted blend, out of fold" not in shown
    assert "blend.yaml" not in shown


def test_rejected_rows_are_in_no_table_and_their_cost_is_shown(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert evaluation.rejected_log_loss is not None
    scored = evaluation.overall[IN_USE].values[0]
    together = ((ROWS - 5) * scored + 5 * evaluation.rejected_log_loss) / ROWS
    assert evaluation.submission_log_loss == pytest.approx(together)
    assert as_json(evaluation)["with_rejected"] == {"rows": ROWS, "log_loss": evaluation.submission_log_loss}
    show(evaluation, tmp_path)
    shown = capsys.readouterr().out
    assert "judged apart: 5 labelled rows that were rejected and got the class prior" in shown
    assert f"blend in use on {ROWS} rows, 5 of them the class prior: log loss {together:.4f}" in shown
    assert f"class priors in the run: 5 of {ROWS} ids" in shown


def test_what_makes_figures_less_than_they_look_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = drawn(200)[1]
    noise = np.random.default_rng(1).dirichlet([1, 1, 1], 200)
    certain = np.eye(3)[(labels + (np.arange(200) < 4)) % 3]
    weights = {"noise": 1.0, "certain": 0.0}
    run, settings = make_run(tmp_path, [f"p{n}" for n in range(200)], {"noise": noise, "certain": certain}, weights)
    write_labels(tmp_path / "labels.csv", labels)
    judged = evaluate(join(run, settings, read_labels(str(tmp_path / "labels.csv"))), settings)
    # In a geometric blend a certain member rules out the other classes, whatever its weight.
    fitted = {FITTED: 0, FITTED_METHODS["geometric"]: 4, FITTED_METHODS["stacked"]: 0}
    assert judged.at_floor == {"noise": 0, "certain": 4, IN_USE: 0, **fitted}
    assert judged.fits["temperature"].at_bound
    assert not judged.fits["weights"].at_bound
    show(judged, tmp_path)
    shown = capsys.readouterr().out
    assert "certain: the chosen class has a probability below 1e-15 in 4 rows; each counts as 34.5 nats" in shown
    assert "fitted temperature: temperature 20 is a bound of the search, 0.05 to 20" in shown
