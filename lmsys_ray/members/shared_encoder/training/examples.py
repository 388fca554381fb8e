"""Labelled conversations as token ids of both texts, and the batches of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.members.shared_encoder.encoder import SharedEncoderEncoder
from lmsys_ray.members.shared_encoder.settings import SharedEncoderSettings
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.members.training.batches import epoch_batches
from lmsys_ray.members.training.files import replaced


@dataclass(frozen=True)
class Examples:
    """Rows as the texts of A, those of B, and classes, int64 [rows]; `groups` int64 [rows] number the prompts."""

    a: RaggedIds
    b: RaggedIds
    labels: np.ndarray
    groups: np.ndarray

    @property
    def longest(self) -> np.ndarray:
        """Tokens of each row's longer text, int64 [rows]."""
        return np.maximum(self.a.lengths, self.b.lengths)

    def texts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Returns the ids of A's text of each row, then those of B's [2 * rows]."""
        return [side[row] for side in (self.a, self.b) for row in rows]

    def tokens(self, rows: np.ndarray) -> int:
        """Returns the tokens of both texts of some rows."""
        return int(self.a.lengths[rows].sum() + self.b.lengths[rows].sum())

    def save(self, path: Path) -> None:
        """Writes the examples, for a training that resumes and for other workers."""
        with replaced(path) as aside, aside.open("wb") as file:
            a, b = self.a, self.b
            np.savez(
                file, a=a.flat, a_starts=a.starts, b=b.flat, b_starts=b.starts, labels=self.labels, groups=self.groups
            )

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Returns the examples of a file of `save`."""
        with np.load(path) as saved:
            a, b = (RaggedIds(saved[side], saved[f"{side}_starts"]) for side in "ab")
            return cls(a, b, saved["labels"], saved["groups"])


def encode_examples(
    conversations: pa.Table, labels: np.ndarray, groups: np.ndarray, settings: SharedEncoderSettings
) -> Examples:
    """Tokenizes a table with the columns of `CONVERSATIONS`, exactly as scoring does."""
    encoded = SharedEncoderEncoder(settings, noted=False).encode(conversations)
    a, b = (RaggedIds.from_arrow(encoded[f"input_ids_{side}"].combine_chunks()) for side in "ab")
    return Examples(a, b, labels, groups)


def plan_epochs(longest: np.ndarray, settings: TrainingSettings, workers: int) -> list[list[list[np.ndarray]]]:
    """Returns the batches of rows of every step of every epoch, `workers * accumulate` a step.

    It is the same for the same seed. Worker i computes the i-th of every `workers`. Batches that do not fill the last
    step of an epoch are dropped. `longest` [rows] are the tokens of each row's longer text.
    """
    size, epochs = workers * settings.accumulate, []
    for epoch in range(settings.epochs):
        batches = epoch_batches(longest, max(1, settings.batch_tokens // 2), (settings.seed, epoch))
        epochs.append([batches[start : start + size] for start in range(0, len(batches) - size + 1, size)])
    return epochs


def padded(rows: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids [rows, width], padded on the right, and a mask [rows, width] of the real ones, int64."""
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), lengths.max()), pad_id, np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
