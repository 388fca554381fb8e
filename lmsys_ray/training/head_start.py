"""A head fitted before the adapter moves: softmax regression on what the frozen backbone makes of each row.

Fine-tuning from a head of zeros spends its first steps, and some of what the backbone knew, on finding a head; from a
fitted one it begins where the frozen features end (linear probing, then fine-tuning: Kumar et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold

from lmsys_ray import CLASSES
from lmsys_ray.errors import UsageError
from lmsys_ray.training.lora_data import Examples, validation_batches
from lmsys_ray.training.lora_files import TrainingFiles
from lmsys_ray.training.lora_model import LoraClassifier
from lmsys_ray.training.lora_settings import LoraSettings

_PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Tried from the strongest on: what half the squared weights are multiplied by, beside the mean log loss."""

_FOLDS = 4


@dataclass(frozen=True)
class FittedHead:
    """A linear head without bias, as transformers' heads are."""

    weight: np.ndarray
    """float32 [3, hidden]."""
    penalty: float
    log_loss: float
    """Of rows that the fit did not see, whole groups at a time."""


def fit_head(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> FittedHead:
    """Fits float32 features [rows, hidden] to `labels` [rows]; the penalty is the best across folds of `groups` [rows].

    Each feature is divided by its root mean square, so that the penalty weighs all alike. Raises `UsageError` where the
    rows are of one group.
    """
    if (found := len(np.unique(groups))) < 2:
        raise UsageError(f"head_start: the rows have {found} prompt, a penalty is chosen across 2 or more; set zero")
    scale = np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=0)).astype(np.float32) + np.float32(1e-12)
    scaled = features / scale
    losses = np.zeros(len(_PENALTIES))
    for training, held_out in GroupKFold(min(_FOLDS, found)).split(scaled, labels, groups):
        for place, weight in enumerate(_path(scaled[training], labels[training], len(_PENALTIES))):
            losses[place] -= log_softmax(scaled[held_out] @ weight.T, axis=1)[
                np.arange(len(held_out)), labels[held_out]
            ].sum()
    best = int(losses.argmin())
    weight = _path(scaled, labels, best + 1)[-1]
    return FittedHead((weight / scale).astype(np.float32), _PENALTIES[best], float(losses[best] / len(labels)))


def start_head(
    classifier: LoraClassifier,
    training: Examples,
    files: TrainingFiles,
    settings: LoraSettings,
    rank: int = 0,
    workers: int = 1,
) -> float:
    """Gives the head of `classifier` a fitted weight, the same in all workers; returns the fit's held-out log loss.

    Each worker computes the features of its share of the rows, in both orders where training shows both. Raises
    `UsageError` for a model whose head is not one linear layer over the last token.
    """
    if not classifier.pools_last_token:
        raise UsageError(f"head_start: the head of {settings.model} is no linear layer; set head_start=zero")
    orders = [False, True] if settings.swap else [False]
    rows = np.arange(len(training.labels))[rank::workers]
    rows, swapped = np.tile(rows, len(orders)), np.repeat(orders, len(rows))
    features = _features(classifier, training, rows, swapped, settings.batch_tokens)
    files.save_features(rank, rows, swapped, features)
    fitted = torch.zeros(len(CLASSES) * features.shape[1] + 1, device=next(classifier.parameters()).device)
    if workers > 1:
        torch.distributed.barrier()  # every worker's features are in its file
    if rank == 0:
        rows, swapped, features = files.load_features(workers)
        head = fit_head(features, training.labels_of(rows, swapped), training.groups[rows])
        fitted.copy_(torch.from_numpy(np.append(head.weight, np.float32(head.log_loss))))
    if workers > 1:
        torch.distributed.broadcast(fitted, 0)
    classifier.start_head(fitted[:-1].reshape(len(CLASSES), -1))
    return float(fitted[-1])


@torch.no_grad()
def _features(
    classifier: LoraClassifier, training: Examples, rows: np.ndarray, swapped: np.ndarray, batch_tokens: int
) -> np.ndarray:
    """Returns what the head reads of each row, float32 [rows, hidden]."""
    classifier.eval()
    device = next(classifier.parameters()).device
    lengths = np.where(swapped, training.swapped.lengths[rows], training.straight.lengths[rows])
    features: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in validation_batches(lengths, batch_tokens):
        ids, _ = training.batch(rows[batch], swapped[batch])
        keys = [("training", row, turned) for row, turned in zip(rows[batch], swapped[batch], strict=True)]
        features.append((batch, classifier.features(*classifier.collate(ids, keys, device)).cpu().numpy()))
    order = np.concatenate([batch for batch, _ in features])
    return np.concatenate([values for _, values in features])[np.argsort(order)]


def _path(features: np.ndarray, labels: np.ndarray, penalties: int) -> list[np.ndarray]:
    """Returns the weights [3, hidden] under each of the first penalties, each fit going on from the one before."""
    targets = np.eye(len(CLASSES), dtype=np.float32)[labels]
    shape = len(CLASSES), features.shape[1]

    def loss(flat: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        weight = flat.reshape(shape)
        logs = log_softmax(features @ weight.T.astype(np.float32), axis=1)
        gradient = (np.exp(logs) - targets).T @ features / len(labels) + penalty * weight
        return float(-(logs * targets).sum() / len(labels) + penalty / 2 * (weight**2).sum()), gradient.ravel().astype(
            np.float64
        )

    weights = [np.zeros(shape)]
    for penalty in _PENALTIES[:penalties]:
        found = minimize(
            loss, weights[-1].ravel(), args=(penalty,), jac=True, method="L-BFGS-B", options={"maxiter": 100}
        )
        weights.append(found.x.reshape(shape))
    return weights[1:]
