"""The first sentences of an evaluation say what its figures bear, and no more."""

import re
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.data.labels import read_labels
from lmsys_ray.evaluation.console import show
from lmsys_ray.evaluation.evaluate import Evaluation, evaluate
from lmsys_ray.evaluation.labelled_scores import join
from lmsys_ray.evaluation.verdict import gains, verdict
from tests.evaluation.runs import blurred, drawn, make_run, write_labels

ROWS = 900


def judged(folder: Path, members: dict[str, np.ndarray], labels: np.ndarray, **blend: float) -> Evaluation:
    prompts = [f"question {n}" for n in range(ROWS)]
    run, settings = make_run(folder, prompts, members, dict.fromkeys(members, 1 / len(members)), **blend)
    write_labels(folder / "labels.csv", labels, sources=["web" if n % 3 else "books" for n in range(ROWS)])
    return evaluate(join(run, settings, read_labels(str(folder / "labels.csv"))), settings)


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -np.log(probabilities[np.arange(ROWS), labels])


def test_the_gain_over_the_class_shares_is_that_of_the_rows(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    first = verdict(judged(tmp_path, {"good": blurred(truth, 0.1, 1)}, labels))[0]
    shares = np.tile(np.bincount(labels) / ROWS, (ROWS, 1))
    gain = losses(shares, labels) - losses(blurred(truth, 0.1, 1), labels)
    found = re.fullmatch(r"the blend is better than the class shares by (\S+) ± (\S+) log loss", first)
    assert found, first
    assert float(found[1]) == pytest.approx(gain.mean(), abs=2e-3)
    assert float(found[2]) == pytest.approx(1.96 * gain.std() / np.sqrt(ROWS), rel=0.15)


def test_a_blend_is_held_against_its_best_member(tmp_path: Path) -> None:
    truth, labels = drawn(ROWS)
    members = {"poor": blurred(truth, 0.9, 2), "good": blurred(truth, 0.05, 1)}
    evaluation = judged(tmp_path, members, labels)
    assert verdict(evaluation)[1].startswith("the blend is worse than good alone, its best member by 0.")
    assert gains(evaluation)
    assert verdict(evaluation)[-1].startswith("weights and temperature fitted to these labels gain 0.")


def test_a_coin_is_not_called_worse_than_the_class_shares_for_noise(tmp_path: Path) -> None:
    _, labels = drawn(ROWS)
    shares = np.bincount(labels) / ROWS
    noise = np.random.default_rng(4).dirichlet(shares * 4000, ROWS)
    assert "is not clearly better or worse than the class shares" in verdict(judged(tmp_path, {"m": noise}, labels))[0]


@pytest.mark.parametrize(("temperature", "word"), [(0.3, "too sure"), (3.0, "not sure enough"), (1.0, "as sure as")])
def test_sureness_is_told_with_its_places(tmp_path: Path, temperature: float, word: str) -> None:
    truth, labels = drawn(ROWS)
    evaluation = judged(tmp_path, {"m": truth}, labels, temperature=temperature)
    told = [line for line in verdict(evaluation) if "sure" in line]
    assert len(told) == 1
    assert word in told[0]
    if temperature != 1:
        assert re.search(r"on all rows \(0\.\d+ ± 0\.\d+\), source web \(0\.\d+ ± 0\.\d+\), source books", told[0]), (
            told
        )


@pytest.mark.parametrize("right", [True, False])
def test_a_fitted_blend_is_recommended_only_where_it_is_clearly_better(
    tmp_path: Path, right: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, labels = drawn(ROWS)
    show(judged(tmp_path, {"m": truth}, labels, temperature=1.0 if right else 3.0), tmp_path)
    said = capsys.readouterr().out
    assert said.startswith("verdict: the blend is better than the class shares")
    assert ("keep the blend in use: what was fitted is not clearly better" in said) == right
    assert ("to blend the run with the fitted weights and temperature: " in said) != right
