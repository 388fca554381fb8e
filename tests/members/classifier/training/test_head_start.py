"""A head fitted to frozen features before the adapter trains."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.scorer import ClassifierScorer
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.head_start import start_head
from lmsys_ray.members.classifier.training.output import finish
from lmsys_ray.members.classifier.training.train import head_alone_was_better
from lmsys_ray.members.training.head_fit import fit_head
from lmsys_ray.metrics import log_loss
from tests.members.classifier.training.test_loop import CPU, conversations, examples, ignore, make_loop, settings
from tests.members.classifier.training.test_models import make_deberta


def probabilities(weight: np.ndarray, features: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(features @ weight.T), dim=1).numpy()


def test_it_finds_what_the_features_tell_and_keeps_from_what_they_do_not() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(2000, 40)).astype(np.float32) * np.geomspace(0.01, 100, 40, dtype=np.float32)
    true = np.zeros((3, 40), np.float32)
    true[0, 5], true[1, 30] = 3 / features[:, 5].std(), 3 / features[:, 30].std()
    chances = probabilities(true, features)
    labels = np.array([random.choice(3, p=row / row.sum()) for row in chances.astype(np.float64)])
    head = fit_head(features[:1500], labels[:1500], np.arange(1500) // 2)
    reached = log_loss(probabilities(head.weight, features[1500:]), labels[1500:])
    assert reached < log_loss(chances[1500:], labels[1500:]) + 0.06
    assert head.log_loss == pytest.approx(reached, abs=0.1)
    noise = fit_head(random.normal(size=(300, 40)).astype(np.float32), random.integers(0, 3, 300), np.arange(300))
    assert noise.log_loss < np.log(3) + 0.02


def test_a_class_that_never_occurs_becomes_improbable() -> None:
    features = np.random.default_rng(1).normal(loc=1.0, size=(400, 8)).astype(np.float32)
    head = fit_head(features, (features[:, 0] > 1).astype(int), np.arange(400))
    assert probabilities(head.weight, features)[:, 2].mean() < 0.05


def test_rows_of_one_prompt_are_too_little() -> None:
    with pytest.raises(UsageError, match="head_start: the rows have 1 prompt"):
        fit_head(np.ones((4, 2), np.float32), np.array([0, 1, 2, 0]), np.zeros(4))


def test_training_goes_on_from_the_fitted_head(base: Path, tmp_path: Path) -> None:
    loop = make_loop(settings(base, head_start="fitted", learning_rate=1e-3, epochs=1), tmp_path)
    loop.run(ignore)
    lines = loop.files.read_metrics()
    assert lines[0]["step"] == 0
    assert lines[0]["learning_rate"] == 0
    assert lines[0]["validation_loss"] < 1.0
    again = make_loop(settings(base, head_start="fitted", learning_rate=1e-3, epochs=1), tmp_path)
    again.run(ignore)
    assert again.files.read_metrics() == lines


def test_the_head_alone_is_not_taken_for_a_trained_adapter(base: Path, tmp_path: Path) -> None:
    """Were its weights kept as the best, the adapter's own would still be zeros, which scoring refuses."""
    loop = make_loop(settings(base, head_start="fitted", learning_rate=0.3, head_learning_rate=0.3, epochs=1), tmp_path)
    loop.run(ignore)
    lines = loop.files.read_metrics()
    assert lines[0]["validation_loss"] < min(line["validation_loss"] for line in lines[1:])
    assert lines[0]["best_step"] == 0 < lines[-1]["best_step"]
    assert any(value.abs().max() > 0 for key, value in loop.files.load_best().items() if "lora_B" in key)
    assert "the fitted head alone reached" in str(head_alone_was_better(lines))
    assert head_alone_was_better(lines[1:]) is None


@pytest.mark.parametrize("validation", [24, 0])
def test_the_head_alone_is_an_adapter_that_scores_as_it_was_judged(base: Path, tmp_path: Path, validation: int) -> None:
    chosen = settings(base, head_start="fitted", epochs=0)
    loop = make_loop(chosen, tmp_path / "run", validation)
    loop.run(ignore)
    loop.finish()
    (line,) = loop.files.read_metrics()
    assert (line["step"], line["best_step"]) == (0, 0)
    assert ("validation_loss" in line) == (validation > 0)
    member = chosen.scoring().model_copy(update={"adapter": str(loop.files.result)})
    with pytest.raises(UsageError, match=r"every lora_B of .* is zero, so it changes nothing"):
        ClassifierScorer(member)
    table, labels = conversations(24)
    rows = LabelledRows([str(i) for i in range(24)], table, labels, np.arange(24), 0)
    finish(chosen, loop.files, rows, np.arange(24), np.arange(0))
    scored = ClassifierScorer(member).score(ClassifierEncoder(member).encode(table)).probabilities
    held_out = examples(chosen, 24)
    expected = loop.probabilities(held_out, np.arange(24))
    np.testing.assert_allclose(scored, expected, atol=2e-3)
    assert log_loss(scored, held_out.labels) < 1.0


def test_no_epochs_without_a_fitted_head_are_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="head_start=fitted beside epochs=0"):
        settings(base, epochs=0)


def test_shares_of_several_workers_make_the_same_head(base: Path, tmp_path: Path) -> None:
    chosen = settings(base, head_start="fitted")
    rows, files = examples(chosen, 48), TrainingFiles(tmp_path)
    weights = []
    for order in ((0,), (1, 0)):
        torch.manual_seed(0)
        classifier = build_classifier(chosen, CPU)
        if len(order) == 2:  # what the other worker leaves, without the process group that would wait for it
            features = files.load_features(1)
            odd = features[0] % 2 == 1
            files.save_features(1, *(part[odd] for part in features))
            files.save_features(0, *(part[~odd] for part in features))
            found = files.load_features(2)
            head = fit_head(found[2], rows.labels_of(found[0], found[1]), rows.groups[found[0]])
            weights.append(torch.from_numpy(head.weight))
        else:
            start_head(classifier, rows, files, chosen)
            weights.append(classifier.weights()["base_model.model.score.weight"])
    torch.testing.assert_close(weights[0], weights[1], atol=1e-2, rtol=1e-2)


def test_a_head_that_is_no_linear_layer_is_refused(tmp_path: Path) -> None:
    chosen = settings(make_deberta(tmp_path / "base"), head_start="fitted")
    with pytest.raises(UsageError, match=r"head_start: the head of .* is not a linear layer; set head_start=zero"):
        start_head(build_classifier(chosen, CPU), examples(chosen, 8), TrainingFiles(tmp_path), chosen)
