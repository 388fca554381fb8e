"""Training a tiny shared encoder in this process: it learns, resumes to the same weights, scores as it validated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmsys_ray.data.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.errors import RunError
from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder
from lmsys_ray.members.shared_encoder.kind import KIND
from lmsys_ray.members.shared_encoder.scorer import SharedEncoderScorer
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from lmsys_ray.members.shared_encoder.training.examples import encode_examples, plan_epochs
from lmsys_ray.members.shared_encoder.training.files import TrainingFiles
from lmsys_ray.members.shared_encoder.training.frozen import fitted_head, train_head
from lmsys_ray.members.shared_encoder.training.loop import EncoderLoop
from lmsys_ray.members.shared_encoder.training.model import build_model
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.members.shared_encoder.training.output import finish
from lmsys_ray.metrics import log_loss
from tests.members.labelled import labelled_rows, write_rows
from tests.tiny_encoders import make_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head, with dropout."""
    folder = tmp_path_factory.mktemp("base")
    make_encoder(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> LabelledRows:
    return read_labelled([str(write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", labelled_rows(90, 45)))])


def settings(base: Path, **changes: Any) -> TrainingSettings:
    quick = {"max_length": 64, "batch_tokens": 512, "dtype": "float32", "epochs": 4}
    quick |= {"learning_rate": 2e-3, "head_learning_rate": 2e-2}
    return TrainingSettings(input=["rows.csv"], output="out", model=str(base), **{**quick, **changes})


TRAINING, HELD_OUT = np.arange(60), np.arange(60, 90)


def make_loop(asked: TrainingSettings, rows: LabelledRows, folder: Path, validated: bool = True) -> EncoderLoop:
    torch.manual_seed(0)
    training, held_out = (
        encode_examples(rows.conversations.take(part), rows.labels[part], rows.groups[part], asked.reading())
        for part in (TRAINING, HELD_OUT)
    )
    files = TrainingFiles(folder)
    return EncoderLoop(asked, build_model(asked, CPU), training, held_out if validated else None, files)


def ignore(line: dict[str, Any]) -> None:
    pass


def member_of(output: Path) -> SharedEncoderSettings:
    note = json.loads((output / "scoring.json").read_text())
    return SharedEncoderSettings(kind="shared_encoder", model=str(output), device="cpu", threads=1, **note)


def scored(output: Path, rows: LabelledRows) -> np.ndarray:
    member = KIND.preflight(member_of(output), "members.it")
    found = SharedEncoderScorer(member).score(SharedEncoderEncoder(member).encode(rows.conversations.take(HELD_OUT)))
    assert found.probabilities is not None
    return found.probabilities


@pytest.mark.parametrize("preset", [None, "kerasnlp"])
def test_scoring_repeats_the_probabilities_of_the_validation(
    base: Path, rows: LabelledRows, tmp_path: Path, preset: str | None
) -> None:
    asked = settings(base, preset=preset, epochs=8)
    loop = make_loop(asked, rows, tmp_path)
    loop.run(ignore)
    loop.finish()
    figures = finish(asked, loop.files, rows, TRAINING, HELD_OUT)
    validated = loop.files.load_probabilities(len(HELD_OUT))
    np.testing.assert_allclose(scored(loop.files.result, rows), validated, atol=1e-5)
    lines = loop.files.read_metrics()
    best = min(line["validation_loss"] for line in lines)
    assert log_loss(validated, rows.labels[HELD_OUT]) == pytest.approx(best, abs=1e-6)
    assert figures["shared encoder"]["log_loss"]["value"] < figures["prior"]["log_loss"]["value"] - 0.1
    assert (loop.files.result / "curves.png").read_bytes().startswith(b"\x89PNG")


class KilledError(Exception):
    """In place of a kill."""


def test_a_training_that_was_killed_ends_with_the_same_weights(base: Path, rows: LabelledRows, tmp_path: Path) -> None:
    asked = settings(base, epochs=3, checkpoint_steps=2, swap=True)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = make_loop(asked, rows, tmp_path / "whole")
    whole.run(ignore)
    killed = make_loop(asked, rows, tmp_path / "killed")
    assert len(killed.steps) >= 6
    stop, step = len(killed.steps) // 2 + 1, killed._step

    def until(number: int) -> None:
        if number == stop:
            raise KilledError
        step(number)

    killed._step = until  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.run(ignore)
    again = make_loop(asked, rows, tmp_path / "killed")
    again.run(ignore)
    for key, value in whole.model.state().items():
        torch.testing.assert_close(again.model.state()[key], value, atol=0, rtol=0)
    found = [{**line, "seconds": 0, "tokens_per_second": 0} for line in again.files.read_metrics()]
    assert found == [{**line, "seconds": 0, "tokens_per_second": 0} for line in whole.files.read_metrics()]


def test_without_a_fold_the_last_weights_are_kept(base: Path, rows: LabelledRows, tmp_path: Path) -> None:
    loop = make_loop(settings(base, epochs=2), rows, tmp_path, validated=False)
    progress = loop.run(ignore)
    loop.finish()
    assert progress.best_step == len(loop.steps)
    assert (loop.files.result / "head.safetensors").is_file()


def test_it_stops_after_epochs_without_a_new_best(base: Path, rows: LabelledRows, tmp_path: Path) -> None:
    loop = make_loop(settings(base, epochs=9, patience=2), rows, tmp_path)
    losses = iter([0.9, 0.8, 0.85, 0.83, 0.1])
    loop.probabilities = lambda examples, own: np.full((len(own), 3), np.exp(-next(losses)))  # type: ignore[method-assign]
    assert loop.run(ignore).best_step == sorted(loop.ends)[1]
    assert [round(line["validation_loss"], 2) for line in loop.files.read_metrics()] == [0.9, 0.8, 0.85, 0.83]


def test_a_loss_that_is_not_finite_ends_the_training(base: Path, rows: LabelledRows, tmp_path: Path) -> None:
    loop = make_loop(settings(base, learning_rate=1e30, warmup=0), rows, tmp_path)
    with pytest.raises(RunError, match="is not finite; lower learning_rate"):
        loop.run(ignore)


def test_a_frozen_encoder_stays_as_it_was_and_its_head_learns(base: Path, rows: LabelledRows, tmp_path: Path) -> None:
    asked = settings(base, frozen=True)
    loop = make_loop(asked, rows, tmp_path)
    before = loop.model.state()
    train_head(asked, loop.model, loop.training, loop.held_out, loop.files, ignore)
    for key, value in loop.model.state().items():
        assert torch.equal(value, before[key]) != key.startswith("head."), key
    finish(asked, loop.files, rows, TRAINING, HELD_OUT)
    validated = loop.files.load_probabilities(len(HELD_OUT))
    np.testing.assert_allclose(scored(loop.files.result, rows), validated, atol=1e-5)
    assert log_loss(validated, rows.labels[HELD_OUT]) < 0.9


def test_a_fitted_head_treats_both_orders_alike() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(loc=2.0, size=(2, 400, 4)).astype(np.float32)
    labels = np.where(a[:, 0] > b[:, 0] + 0.7, 0, np.where(b[:, 0] > a[:, 0] + 0.7, 1, 2))
    weight, bias = fitted_head(a, b, labels, np.arange(400), swap=True)
    straight, swapped = (np.concatenate(pair, axis=1) @ weight.T + bias for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(straight, swapped[:, [1, 0, 2]], atol=1e-2)
    assert (straight.argmax(axis=1) == labels).mean() > 0.8


def test_every_epoch_shows_each_row_once(base: Path) -> None:
    longest = np.random.default_rng(0).integers(5, 60, 200)
    epochs = plan_epochs(longest, settings(base, epochs=3), 1)
    assert len(epochs) == 3
    for steps in epochs:
        assert sorted(np.concatenate([rows for step in steps for rows in step]).tolist()) == list(range(200))
        assert all(2 * len(rows) * longest[rows].max() <= 512 for step in steps for rows in step)
    assert [len(step) for step in plan_epochs(longest, settings(base, accumulate=2), 2)[0]] == [4] * (
        len(epochs[0]) // 4
    )
