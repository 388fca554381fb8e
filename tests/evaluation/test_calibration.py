"""A calibration finds what scores were made with, is judged on rows it has not seen, and prefers what is simple."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lmsys_ray.ensemble.links import Link, LinkName
from lmsys_ray.errors import RunError
from lmsys_ray.evaluation.calibration import BLENDS, METHODS, Calibrated, calibrate, choose, fit_links
from lmsys_ray.evaluation.calibration_report import calibration_yaml, show
from lmsys_ray.evaluation.evaluate import PRIOR
from lmsys_ray.evaluation.labelled_scores import Counts, LabelledScores
from lmsys_ray.evaluation.link_choice import choose_links
from lmsys_ray.metrics import Estimate, log_loss
from lmsys_ray.scoring.settings import Settings

ROWS = 1_500
TRUE = Link("rao_kupper", 2.5, 0.6)
GENERATOR = np.random.default_rng(1)
LATENT = GENERATOR.normal(0, 3, ROWS)
TRUTH = TRUE.probabilities(LATENT)
LABELS = (GENERATOR.random(ROWS)[:, None] > TRUTH.cumsum(axis=1)).sum(axis=1).clip(0, 2)
NOISY = 0.6 * TRUTH + 0.4 * GENERATOR.dirichlet([3, 3, 3], ROWS)


def settings(**members: dict[str, Any]) -> Settings:
    kinds = {name: {"kind": "scores", "path": "x.csv", **values} for name, values in members.items()}
    return Settings.model_validate({"input": "in.csv", "output": "run", "prior": [0.4, 0.4, 0.2], "members": kinds})


def labelled(
    chosen: Settings, differences: dict[str, np.ndarray], labels: np.ndarray = LABELS, **probabilities: np.ndarray
) -> LabelledScores:
    """The joined rows, two a prompt, with the probabilities that members of two scores have by their settings."""
    linked = {}
    for name, values in differences.items():
        asked = chosen.members[name].link_settings()
        assert asked is not None
        linked[name] = Link(asked.name, asked.scale or 1.0, asked.tie or 0.5).probabilities(values)
    return LabelledScores(
        members={**probabilities, **linked},
        differences=differences,
        orders={},
        labels=labels,
        prompts=np.arange(len(labels)) // 2,
        slices={},
        rejected_labels=np.empty(0, int),
        counts=Counts(len(labels), len(labels), len(labels), 0, 0, 0, 0, 0, 0, 0),
    )


TWO = settings(reward={"link": "rao_kupper", "scale": 0.5, "tie": 0.1}, plain={})


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    return calibrate(labelled(TWO, {"reward": LATENT}, plain=NOISY), TWO)


def test_the_link_that_labels_were_drawn_from_is_found(calibrated: Calibrated) -> None:
    """Within four standard errors, which are about 0.1 of the scale and 0.03 of the tie."""
    for method in METHODS:
        link = calibrated.fits[method].links["reward"]
        assert link.name == "rao_kupper"
        assert link.scale == pytest.approx(2.5, abs=0.4)
        assert link.tie == pytest.approx(0.6, abs=0.12)


def test_before_is_as_settings_are_and_after_out_of_fold(calibrated: Calibrated) -> None:
    joined = labelled(TWO, {"reward": LATENT}, plain=NOISY)
    before = {name: log_loss(p, LABELS) for name, p in joined.members.items()}
    before |= {BLENDS["linear"]: log_loss(TWO.blending().of(joined.members), LABELS)}
    for name, loss in before.items():
        assert calibrated.before[name].values[0] == pytest.approx(loss)
    assert set(calibrated.before) == {PRIOR, "reward", "plain", BLENDS["linear"], BLENDS["geometric"]}
    assert set(calibrated.after) == {"reward", *BLENDS.values()}
    ideal = log_loss(TRUTH, LABELS)
    members = {"reward": LATENT, "plain": NOISY}
    for method, name in BLENDS.items():
        on_its_own_rows = log_loss(calibrated.fits[method].of(members), LABELS)
        assert on_its_own_rows < calibrated.after[name].values[0] < ideal + 0.01
    assert calibrated.after["reward"].values[0] == pytest.approx(ideal, abs=0.01)
    assert calibrated.before["reward"].values[0] > ideal + 0.3


def test_the_simplest_blend_is_chosen_where_none_is_clearly_better(calibrated: Calibrated) -> None:
    assert calibrated.chosen == "linear"


def test_rows_of_a_fold_have_no_part_in_their_own_prediction() -> None:
    """Labels that no score knows of: whatever is fitted in fold is below the class shares, out of fold it is not."""
    few = slice(0, 60)
    labels = np.random.default_rng(3).permutation(np.arange(60) % 3)
    found = calibrate(labelled(TWO, {"reward": LATENT[few]}, labels, plain=NOISY[few]), TWO)
    members = {"reward": LATENT[few], "plain": NOISY[few]}
    for method, name in BLENDS.items():
        assert log_loss(found.fits[method].of(members), labels) <= np.log(3) + 1e-6
        assert found.after[name].values[0] >= np.log(3) - 1e-6


def estimate(loss: float, resampled: list[float]) -> Estimate:
    return Estimate(np.array([loss, 0, 0, 0]), np.array([[value, 0, 0, 0] for value in resampled]))


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({"linear": (0.9, 0.90, 0.90), "geometric": (0.9, 0.90, 0.90), "stacked": (0.9, 0.90, 0.90)}, "linear"),
        ({"linear": (0.9, 0.88, 0.92), "geometric": (0.89, 0.89, 0.89), "stacked": (0.95, 0.9, 1.0)}, "linear"),
        ({"linear": (0.9, 0.89, 0.91), "geometric": (0.8, 0.78, 0.82), "stacked": (0.79, 0.79, 0.79)}, "geometric"),
        ({"linear": (0.9, 0.89, 0.91), "geometric": (0.8, 0.79, 0.81), "stacked": (0.7, 0.69, 0.71)}, "stacked"),
    ],
)
def test_a_more_complex_blend_has_to_be_clearly_better(losses: dict[Any, tuple[float, ...]], chosen: str) -> None:
    assert choose({method: estimate(loss, [low, high]) for method, (loss, low, high) in losses.items()}) == chosen


def test_settings_that_are_written_describe_what_was_fitted(calibrated: Calibrated) -> None:
    members = {"reward": LATENT, "plain": NOISY}
    for method in METHODS:
        text = calibration_yaml(replace(calibrated, chosen=method), TWO)
        layer = yaml.safe_load(text)
        assert not {"input", "output", "path"} & {*layer, *layer["members"]["reward"]}
        values = TWO.model_dump(mode="json")
        merged = {name: values["members"][name] | layer["members"][name] for name in values["members"]}
        again = Settings.model_validate(values | layer | {"members": merged})
        asked = again.members["reward"].link_settings()
        assert asked is not None
        probabilities = {"reward": Link(*asked).probabilities(LATENT), "plain": NOISY}  # type: ignore[arg-type]
        expected = calibrated.fits[method].of(members)
        np.testing.assert_allclose(again.blending().of(probabilities), expected, rtol=1e-5)
        assert again.blend == method


def test_a_run_that_is_calibrated_gains_nothing_by_another_one(
    calibrated: Calibrated, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = calibrated.fits["linear"]
    link = chosen.links["reward"]
    again = settings(
        reward={"link": link.name, "scale": link.scale, "tie": link.tie, "weight": chosen.blend.weights["reward"]},
        plain={"weight": chosen.blend.weights["plain"]},
    )
    found = calibrate(labelled(again, {"reward": LATENT}, plain=NOISY), again)
    assert found.fits["linear"].links == chosen.links
    show(found, "again")
    shown = capsys.readouterr().out
    assert "linear blend (in use, chosen)" in shown
    assert "against the blend in use: better" not in shown
    assert shown.splitlines()[-1] == "to blend the run with it: again"


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        (-LATENT, "reward: people prefer responses with lower scores"),
        (np.zeros(ROWS), "reward: its scores say nothing of these labels"),
    ],
)
def test_scores_that_labels_go_against_are_told(
    differences: np.ndarray, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = calibrate(labelled(TWO, {"reward": differences}, plain=NOISY), TWO)
    show(found, "again")
    assert sentence in capsys.readouterr().out
    assert np.isfinite(found.after[BLENDS["linear"]].values[0])


def test_the_other_link_is_taken_where_it_is_clearly_better(capsys: pytest.CaptureFixture[str]) -> None:
    true: LinkName = "rao_kupper"
    in_use = "davidson"
    latent = np.random.default_rng(5).normal(0, 3, 8_000)
    truth = Link(true, 1.0, 1.0).probabilities(latent)
    labels = (np.random.default_rng(6).random(8_000)[:, None] > truth.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    members = settings(reward={"link": in_use})
    found = calibrate(labelled(members, {"reward": latent}, labels), members)
    assert yaml.safe_load(calibration_yaml(found, members))["members"]["reward"]["link"] == true
    expected = log_loss(truth, labels)
    assert found.links["reward"].estimates[true].values[0] == pytest.approx(expected, abs=0.005)
    assert found.after["reward"].values[0] == found.links["reward"].estimates[true].values[0]
    show(found, "again")
    assert f"reward: link {true}, better than {in_use} by -0.0" in capsys.readouterr().out.replace("\u2212", "-")


@pytest.mark.parametrize(("in_use", "other"), [("davidson", "rao_kupper"), ("rao_kupper", "davidson")])
def test_the_link_in_use_is_kept_where_nothing_speaks_against_it(in_use: LinkName, other: LinkName) -> None:
    labels = np.random.default_rng(3).permutation(np.arange(300) % 3)
    rows = np.arange(300)
    found = choose_links({"reward": LATENT[:300]}, labels, rows, rows % 5, {"reward": in_use})["reward"]
    assert (found.chosen, found.other) == (in_use, other)


def test_without_tied_labels_a_tie_to_come_is_not_impossible() -> None:
    labels = np.where(LABELS == 2, 0, LABELS)
    link = fit_links({"reward": LATENT}, labels, {"reward": "davidson"})["reward"]
    assert link.probabilities(LATENT)[:, 2].mean() == pytest.approx(1 / (ROWS + 2), rel=1e-3)


def test_a_class_of_one_row_is_refused() -> None:
    labels = np.where(LABELS == 2, 0, LABELS)
    labels[7] = 2
    with pytest.raises(RunError, match="nothing can be calibrated: class tie has 1 labelled row"):
        calibrate(labelled(TWO, {"reward": LATENT}, labels, plain=NOISY), TWO)


def test_one_member_is_calibrated(tmp_path: Path) -> None:
    only = settings(reward={})
    found = calibrate(labelled(only, {"reward": LATENT}), only)
    assert found.chosen == "linear"
    assert yaml.safe_load(calibration_yaml(found, only))["members"]["reward"]["weight"] == 1.0
