"""From the turns of the sides to the figures of the table."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmsys_ray.benchmark.benchmark import Measurements
from lmsys_ray.benchmark.settings import BenchmarkSettings
from lmsys_ray.benchmark.shape import RANDOM, Shape
from lmsys_ray.benchmark.side_process import SideRun
from lmsys_ray.benchmark.sides.transformers import padded, plan
from lmsys_ray.benchmark.table import (
    encoder_figures,
    feature_figures,
    figures,
    job_figures,
    reward_figures,
    show,
    write,
)
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.errors import UsageError

ROWS = RaggedIds(np.arange(30, dtype=np.int32), np.array([0, 10, 30]))
SHAPE = Shape.of(RANDOM["smollm2-135m"])


def turn(seconds: float, p: float = 0.5, slots: int = 40, memory: int = 100) -> SideRun:
    return SideRun(seconds, memory, {"probabilities": [[p, 1 - p, 0.0], [0.2, 0.3, 0.5]], "slots": slots})


def measured() -> Measurements:
    task = BenchmarkTask("", 20, 4096, 4, 2, "wall", [0, 1, 2], 1)
    found = Measurements(task, SHAPE, ROWS)
    found.reference = np.array([[0.5, 0.5, 0.0]])
    speed = SHAPE.operations(ROWS.lengths)  # the peak takes one second for the rows, then half of one
    found.runs = {
        "peak:float32": [SideRun(1, 0, {"operations_per_second": s}) for s in (speed, speed, 2 * speed)],
        "notebook": [turn(10), turn(20), turn(12)],
        "packed": [turn(2, memory=70), turn(4, memory=90), turn(2, p=0.51, slots=30, memory=80)],
        "features:dense": [SideRun(1.0, 900, {"rows": 50, "sum": 3.0, "before": 100})] * 3,
    }
    return found


def test_figures_are_medians_and_ratios_are_those_of_a_round() -> None:
    found = figures(measured(), cuda=False)
    packed, notebook = found["packed"], found["notebook"]
    assert list(found) == ["notebook", "packed"]
    assert packed.rows_per_second == 1
    assert packed.tokens_per_second == 15
    assert packed.padding_share == 0
    assert notebook.padding_share == pytest.approx(0.25)
    assert packed.peak_share == pytest.approx(np.median([1 / 2, 1 / 4, 1 / 4]))
    assert packed.memory == 90
    assert packed.ratio == pytest.approx(np.median([10 / 2, 20 / 4, 12 / 2]))
    assert notebook.ratio == 1


def test_only_the_checked_rows_are_compared() -> None:
    assert figures(measured(), cuda=False)["packed"].difference == pytest.approx(0.01)


def test_memory_of_features_is_what_came_on_top() -> None:
    assert feature_figures(measured())["features:dense"] == {"rows_per_second": 50, "memory": 800, "sum": 3.0}


def test_a_side_that_failed_has_no_figures_but_a_reason(tmp_path: Path) -> None:
    found = measured()
    found.failures["packed"] = "CUDA out of memory"
    write(found, BenchmarkSettings(), cuda=False, path=tmp_path / "deep" / "figures.json")
    content = json.loads((tmp_path / "deep" / "figures.json").read_text())
    assert list(content["sides"]) == ["notebook"]
    assert content["failed"] == {"packed": "CUDA out of memory"}
    assert len(content["peaks"]["peak:float32"]) == 3


def test_plain_sides_batch_as_users_do() -> None:
    lengths = np.array([5, 9, 1, 7, 3])
    assert [batch.tolist() for batch in plan(lengths, "notebook", 2)] == [[0, 1, 2, 3], [4]]
    assert [batch.tolist() for batch in plan(lengths, "dynamic", 2)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in plan(lengths, "sorted", 2)] == [[1, 3], [0, 4], [2]]
    assert [batch.tolist() for batch in plan(lengths, "reference", 2)] == [[0], [1], [2], [3], [4]]


def test_padding_stands_on_the_right() -> None:
    inputs = padded(ROWS, np.array([0, 1]), None, 99)
    assert inputs["input_ids"].shape == (2, 20)
    assert inputs["input_ids"][0].tolist() == [*range(10), *[99] * 10]
    assert inputs["attention_mask"].sum(1).tolist() == [10, 20]
    assert padded(ROWS, np.array([0]), 24, 99)["input_ids"].shape == (1, 24)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sides": ["packed", "fast"]}, "--sides: .* fast is not one of notebook, dynamic"),
        ({"model_shape": "gpt-2"}, "--model-shape: 'gpt-2' is not accepted: one of llama-3-8b, smollm2-135m"),
        ({"rows": 0}, "--rows: 0 is not accepted; accepted: greater than 0"),
    ],
)
def test_what_is_not_accepted_is_a_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        BenchmarkSettings.checked_from(values)


def test_sides_suit_the_device() -> None:
    settings = BenchmarkSettings(vllm_python="/somewhere/python")
    assert settings.chosen_sides(cuda=False) == ["notebook", "dynamic", "sorted", "vllm", "packed"]
    assert {"int8_dynamic", "fp8", "int8", "nf4"} < set(settings.chosen_sides(cuda=True))
    assert BenchmarkSettings(sides=["packed"]).chosen_sides(cuda=True) == ["packed"]


def test_the_overhead_of_a_job_is_that_of_a_round() -> None:
    found = measured()
    assert job_figures(found) == {}
    rounds = [(100, 98), (50, 40), (200, 180)]
    found.runs["job:alone"] = [SideRun(9, 0, {"tokens": alone * 2, "seconds": 2.0}) for alone, _ in rounds]
    found.runs["job:distributed"] = [SideRun(9, 0, {"tokens": job * 3, "seconds": 3.0}) for _, job in rounds]
    assert job_figures(found) == {"job:alone": 100, "job:distributed": 98, "overhead": pytest.approx(0.1)}
    found.failures["job:alone"] = "killed"
    assert job_figures(found) == {}


def compared(sides: tuple[str, str], moved: float = 0.0) -> Measurements:
    """Two rows of two sequences: 100 and 60 tokens computed, 40 %, 50 % and 10 % of the time saved."""
    found = measured()
    for side, times, computed, more in ((sides[0], (10, 20, 10), 100, 0.0), (sides[1], (6, 10, 9), 60, moved)):
        answer = {"outputs": [[0.5], [0.1], [0.2], [0.3 + more]], "allowed": 1e-4, "tokens": 90, "computed": computed}
        found.runs[side] = [SideRun(seconds, 0, answer) for seconds in times]
    return found


def test_what_a_shared_prompt_saves_is_that_of_a_round() -> None:
    assert reward_figures(measured()) is None
    found = compared(("reward:apart", "reward:together"))
    reward = reward_figures(found)
    assert reward
    assert (reward.rows, reward.tokens) == (2, 90)
    assert reward.rows_per_second["reward:together"] == pytest.approx(2 / 9)
    assert reward.tokens_saved == pytest.approx(0.4)
    assert reward.time_saved == pytest.approx(0.4)
    assert reward.time_per_token == pytest.approx(1)
    found.failures["reward:apart"] = "killed"
    assert reward_figures(found) is None


def test_the_ratio_of_an_encoders_sides_is_that_of_a_round() -> None:
    encoder = encoder_figures(compared(("encoder:padded", "encoder:sorted")))
    assert encoder
    assert encoder.rows == 4
    assert encoder.ratio == pytest.approx(10 / 6)


@pytest.mark.parametrize(("moved", "said"), [(0.0, "1.0e-04 is allowed"), (0.1, "not comparable")])
def test_outputs_that_differ_are_told(moved: float, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(compared(("encoder:padded", "encoder:sorted"), moved), cuda=False)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "times as fast" in line]
    assert said in line
