"""A head fitted before the adapter is trained: softmax regression on the output of the frozen backbone.

Fine-tuning from a head of zeros spends its first steps, and some of what the backbone knew, on finding a head; with a
fitted one it starts where the frozen features end (linear probing, then fine-tuning: Kumar et al. 2022).
"""

from __future__ import annotations

import numpy as np
import torch

from lmsys_ray import CLASSES
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.training.examples import Examples
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.model import TrainedClassifier
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.batches import validation_batches
from lmsys_ray.members.training.head_fit import fit_head


def start_head(
    classifier: TrainedClassifier,
    training: Examples,
    files: TrainingFiles,
    settings: TrainingSettings,
    rank: int = 0,
    workers: int = 1,
) -> float:
    """Fits the weight of the head of `classifier`, the same in all workers; returns the held-out log loss of the fit.

    Each worker computes the features of its share of the rows, in both orders where training uses both. Raises
    `UsageError` for a model whose head is not one linear layer over the last token.
    """
    if not classifier.pools_last_token:
        raise UsageError(f"head_start: the head of {settings.model} is not a linear layer; set head_start=zero")
    orders = [False, True] if settings.swap else [False]
    rows = np.arange(len(training.labels))[rank::workers]
    rows, swapped = np.tile(rows, len(orders)), np.repeat(orders, len(rows))
    features = _features(classifier, training, rows, swapped, settings.batch_tokens)
    files.save_features(rank, rows, swapped, features)
    fitted = torch.zeros(len(CLASSES) * features.shape[1] + 1, device=next(classifier.parameters()).device)
    if workers > 1:
        torch.distributed.barrier()  # until the features of every worker are in its file
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
    classifier: TrainedClassifier, training: Examples, rows: np.ndarray, swapped: np.ndarray, batch_tokens: int
) -> np.ndarray:
    """Returns what the head reads of each row, float32 [rows, hidden]."""
    classifier.eval()
    device = next(classifier.parameters()).device
    lengths = np.where(swapped, training.swapped.lengths[rows], training.straight.lengths[rows])
    features: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in validation_batches(lengths, batch_tokens):
        ids, _ = training.batch(rows[batch], swapped[batch])
        keys = [("training", row, order) for row, order in zip(rows[batch], swapped[batch], strict=True)]
        features.append((batch, classifier.features(*classifier.collate(ids, keys, device)).cpu().numpy()))
    order = np.concatenate([batch for batch, _ in features])
    return np.concatenate([values for _, values in features])[np.argsort(order)]
