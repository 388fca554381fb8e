"""The training loop on a tiny random Llama, without Ray: learning, resuming, stopping, and what scoring makes of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.examples import Examples, encode_examples
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.loop import TrainingLoop
from lmsys_ray.members.classifier.training.options import TrainingSettings
from tests.members.labelled import labelled_rows

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the end of the process."""


def settings(base: Path, **changes: object) -> TrainingSettings:
    quick = {"max_length": 128, "epochs": 4, "batch_tokens": 512, "rank": 4, "dtype": "float32"}
    steps = {"learning_rate": 0.01, "head_learning_rate": 0.01, "evaluate_steps": 4, "checkpoint_steps": 3}
    return TrainingSettings(**{"input": ["rows.csv"], "output": "out", "model": str(base), **quick, **steps, **changes})


def conversations(count: int) -> tuple[pa.Table, np.ndarray]:
    rows = labelled_rows(count)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("prompt", "response_a", "response_b"), 1)}
    table = pa.table({"row": pa.array(range(count), pa.int64()), **columns})
    return table, np.array([row[4:].index(1) for row in rows])


def examples(chosen: TrainingSettings, count: int) -> Examples:
    table, labels = conversations(count)
    return encode_examples(table, labels, np.arange(count), chosen.reading())


def make_loop(chosen: TrainingSettings, directory: Path, validation: int = 24) -> TrainingLoop:
    torch.manual_seed(chosen.seed)
    directory.mkdir(exist_ok=True)
    classifier = build_classifier(chosen, CPU)
    held_out = examples(chosen, validation) if validation else None
    return TrainingLoop(chosen, classifier, examples(chosen, 48), held_out, TrainingFiles(directory))


def ignore(line: dict[str, Any]) -> None:
    """Takes a report and does nothing with it."""


def test_it_learns_and_the_scorer_gives_the_probabilities_that_training_saw(base: Path, tmp_path: Path) -> None:
    chosen = settings(base)
    loop = make_loop(chosen, tmp_path / "run")
    progress = loop.run(ignore)
    loop.finish()
    lines = loop.files.read_metrics()
    assert lines[0]["validation_loss"] > 0.9
    assert progress.best_loss < 0.5
    assert progress.best_loss == min(line["validation_loss"] for line in lines)
    member = chosen.scoring().model_copy(update={"adapter": str(loop.files.result)})
    scored = ClassifierScorer(member).score(ClassifierEncoder(member).encode(conversations(24)[0])).probabilities
    np.testing.assert_allclose(scored, loop.files.load_probabilities(24), atol=1e-5)
    config = json.loads((loop.files.result / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert "score" in config["modules_to_save"]
    assert config["base_model_name_or_path"] == str(base)


def test_the_head_learns_at_a_rate_of_its_own(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base, learning_rate=1e-20, warmup=0, weight_decay=0), tmp_path)
    before = loop.classifier.weights()
    loop._step(0)
    moved = {name for name, weight in loop.classifier.weights().items() if (weight - before[name]).abs().max() > 1e-6}
    assert moved == {name for name in before if "score" in name}
    trained = [weight for weight in loop.classifier.parameters() if weight.requires_grad]
    assert sorted(map(id, trained)) == sorted(id(w) for group in loop.optimizer.param_groups for w in group["params"])


def test_a_killed_training_goes_on_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, epochs=2)
    whole = make_loop(chosen, tmp_path / "whole")
    whole.run(ignore)

    def die_at_step_8(line: dict[str, Any]) -> None:
        if line["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        make_loop(chosen, tmp_path / "killed").run(die_at_step_8)
    resumed = make_loop(chosen, tmp_path / "killed")
    resumed.run(ignore)
    before, after = whole.classifier.weights(), resumed.classifier.weights()
    for key, weight in before.items():
        torch.testing.assert_close(after[key], weight, atol=1e-6, rtol=1e-5)
    steps = [line["step"] for line in resumed.files.read_metrics()]
    assert steps == [line["step"] for line in whole.files.read_metrics()]


def test_a_checkpoint_of_other_workers_is_refused(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base), tmp_path)
    loop.progress.workers = 2
    loop.files.save_checkpoint({"progress": asdict(loop.progress)})
    with pytest.raises(RunError, match="was trained by 2 workers until step 0 and there are 1 now; set workers=2"):
        loop.run(ignore)


def test_a_finished_training_is_not_trained_again(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, epochs=0.5)
    make_loop(chosen, tmp_path).run(ignore)
    reports: list[dict[str, Any]] = []
    make_loop(chosen, tmp_path).run(reports.append)
    assert reports == []


def test_it_stops_early_and_keeps_the_best_weights(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, epochs=40, learning_rate=0.3, evaluate_steps=2, patience=3, clip=1000)
    loop = make_loop(chosen, tmp_path)
    progress = loop.run(ignore)
    assert progress.step < len(loop.steps)
    assert progress.step == progress.best_step + 3 * 2
    loop.finish()
    saved = load_file(loop.files.result / "adapter_model.safetensors")
    best = loop.files.load_best()
    assert all(torch.equal(saved[key], best[key]) for key in best)
    probabilities, labels = loop.files.load_probabilities(24), conversations(24)[1]
    loss = -np.log(np.clip(probabilities[np.arange(24), labels], 1e-15, 1)).mean()
    assert loss == pytest.approx(progress.best_loss, abs=1e-4)


def test_without_a_held_out_fold_the_last_weights_are_kept(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base, epochs=1), tmp_path, validation=0)
    progress = loop.run(ignore)
    assert progress.best_step == progress.step == len(loop.steps)
    best, last = loop.files.load_best(), loop.classifier.weights()
    assert all(torch.equal(best[key], last[key]) for key in last)


def test_a_loss_that_is_not_finite_is_one_sentence(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base), tmp_path)
    with torch.no_grad():
        next(weight for name, weight in loop.classifier.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(RunError, match="the loss of step 1 is not finite; lower learning_rate"):
        loop.run(ignore)
    assert not loop.files.best.exists()


def test_only_the_top_blocks_are_adapted_where_asked(base: Path) -> None:
    classifier = build_classifier(settings(base, top_layers=1, targets=["v_proj", "down_proj"]), CPU)
    keys = set(classifier.weights())
    adapted = {key for key in keys if "lora_" in key}
    assert adapted
    assert all(".layers.1." in key for key in adapted)
    assert keys - adapted == {"base_model.model.score.weight"}


@pytest.mark.parametrize("change", [{"keep_frozen": True}, pytest.param({"compile": True}, marks=pytest.mark.slow)])
def test_what_saves_time_changes_no_weight(base: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    chosen = settings(base, epochs=2, top_layers=1)
    plain = make_loop(chosen, tmp_path / "plain")
    quick = make_loop(chosen.model_copy(update=change), tmp_path / "quick")
    for loop in (plain, quick):
        loop.run(ignore)
    expected, weights = plain.classifier.weights(), quick.classifier.weights()
    assert expected.keys() == weights.keys()
    for key, weight in expected.items():
        torch.testing.assert_close(weights[key], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("top_layers", [None, 2])
def test_nothing_is_kept_where_every_block_is_adapted(base: Path, top_layers: int | None) -> None:
    with pytest.raises(UsageError, match="keep_frozen: there is nothing to keep"):
        build_classifier(settings(base, keep_frozen=True, top_layers=top_layers), CPU)


@pytest.mark.parametrize("change", [{"targets": ["no_such_layer"]}, {"model": "/no/such/model"}])
def test_a_model_or_layers_that_are_not_there_are_usage_errors(base: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"no_such_layer|/no/such/model"):
        build_classifier(settings(base, **change), CPU)


def test_a_smoothed_label_is_spread_over_the_classes_in_training_alone(base: Path, tmp_path: Path) -> None:
    plain, smooth = (make_loop(settings(base, label_smoothing=share), tmp_path / str(share)) for share in (0.0, 0.3))
    for loop in (plain, smooth):  # the head starts at zero, where every label costs the same
        with torch.no_grad():
            loop.classifier.inner.score.modules_to_save["default"].weight.normal_(generator=torch.manual_seed(1))
    batch = smooth.steps[0][0]
    rows, labels = smooth.training.batch(batch.rows, batch.swap)
    with torch.no_grad():
        logits = smooth.classifier(*smooth.classifier.collate(rows, [*batch.rows], CPU))
        logs = torch.log_softmax(logits, dim=1).numpy()
    targets = 0.7 * np.eye(3)[labels] + 0.1
    assert float(smooth._loss(batch)) == pytest.approx(-(targets * logs).sum(), rel=1e-5)
    assert float(plain._loss(batch)) == pytest.approx(-logs[np.arange(len(labels)), labels].sum(), rel=1e-5)
    held_out = examples(smooth.settings, 24)
    assert smooth.validate(held_out) == pytest.approx(plain.validate(held_out))


def test_each_epoch_ends_in_a_validation_where_asked(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base, evaluate_steps="epoch", epochs=3, accumulate=2, patience=9), tmp_path)
    loop.run(ignore)
    lines = loop.files.read_metrics()
    assert len(lines) == 3
    assert lines[-1]["epoch"] == 3
    seen = [{int(row) for step in loop.steps[: line["step"]] for batch in step for row in batch.rows} for line in lines]
    assert len(seen[0]) >= 40  # of 48, but for micro-batches that share a step with the next epoch
    for line, epoch in zip(lines, range(3), strict=True):
        assert all(batch.epoch <= epoch for step in loop.steps[: line["step"] - 1] for batch in step)
        assert line["step"] == len(loop.steps) or loop.steps[line["step"]][0].epoch == epoch + 1


def test_a_learning_rate_is_chosen_for_what_is_trained(base: Path) -> None:
    assert settings(base, learning_rate=None).rate == 3e-4
    assert settings(base, learning_rate=None, lora="none", rank=16).rate == 2e-5
    assert settings(base, learning_rate=0.5).rate == 0.5


def test_scoring_settings_are_those_of_the_training(base: Path) -> None:
    member = settings(base, text="notebook", template="notebook", truncation="right").scoring()
    assert isinstance(member, ClassifierSettings)
    assert (member.text, member.template, member.max_length, member.truncation) == (
        "notebook",
        "notebook",
        128,
        "right",
    )
