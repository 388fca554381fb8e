"""Learns the head alone: a logistic regression on the mean states of the texts, which are computed once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from lmsys_ray import SWAPPED
from lmsys_ray.members.shared_encoder.training.examples import Examples
from lmsys_ray.members.shared_encoder.training.files import TrainingFiles
from lmsys_ray.members.shared_encoder.training.loop import Report, predicted
from lmsys_ray.members.shared_encoder.training.model import SharedEncoderModel
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.members.training.batches import validation_batches
from lmsys_ray.members.training.head_fit import fit_head
from lmsys_ray.metrics import log_loss


def train_head(
    settings: TrainingSettings,
    model: SharedEncoderModel,
    training: Examples,
    held_out: Examples | None,
    files: TrainingFiles,
    report: Report,
) -> None:
    """Fits the head of `model`, and writes what `EncoderLoop` writes."""
    began = time.monotonic()
    rows = np.arange(len(training.labels))
    a, b = text_means(model, training, settings.batch_tokens)
    weight, bias = fitted_head(a, b, training.labels, training.groups, settings.swap)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
        logits = np.concatenate([a, b], axis=1) @ weight.T + bias
    seconds = time.monotonic() - began
    shown = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
    line: dict[str, Any] = {"step": 1, "steps": 1, "train_loss": float(log_loss(shown, training.labels))}
    line |= {"tokens_per_second": training.tokens(rows) / seconds, "learning_rate": 0.0, "best_step": 1}
    if held_out is not None:
        places = np.arange(len(held_out.labels))
        probabilities = predicted(model, held_out, places, settings.batch_tokens)
        line["validation_loss"] = float(log_loss(probabilities, held_out.labels))
        files.save_probabilities(0, places, probabilities)
    files.append_metrics(line | {"seconds": round(seconds, 1)})
    model.save(files.result, settings.model)
    files.save_how_computed({"dtype": str(model.compute).removeprefix("torch.")})
    report(line)


@torch.no_grad()
def text_means(model: SharedEncoderModel, examples: Examples, batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean states of A's and of B's text of each row, float32 [rows, dim] each."""
    model.eval()
    found = []
    for side in (examples.a, examples.b):
        means = np.empty((len(side), model.head.in_features // 2), np.float32)
        for batch in validation_batches(side.lengths, batch_tokens):
            texts = [side[row] for row in batch]
            means[batch] = model.means(*model.collate(texts, model.head.weight.device)).cpu().numpy()
        found.append(means)
    return found[0], found[1]


def fitted_head(
    a: np.ndarray, b: np.ndarray, labels: np.ndarray, groups: np.ndarray, swap: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns weight [3, 2 dim] and bias [3], float32, of the head for the means `a` and `b` [rows, dim].

    The penalty is chosen across folds of `groups` [rows]. With `swap`, each row counts in both orders.
    """
    pairs = np.concatenate([a, b], axis=1)
    if swap:
        pairs = np.concatenate([pairs, np.concatenate([b, a], axis=1)])
        labels, groups = np.concatenate([labels, np.array(SWAPPED)[labels]]), np.tile(groups, 2)
    center = pairs.mean(axis=0)
    constant = np.ones((len(pairs), 1), np.float32)
    fitted = fit_head(np.concatenate([pairs - center, constant], axis=1), labels, groups).weight
    weight = np.ascontiguousarray(fitted[:, :-1])
    return weight, fitted[:, -1] - weight @ center
