"""Labelled conversations as token ids, in both orders of A and B, and the batches of an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lmsys_ray import SWAPPED
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.batches import epoch_batches

SWAPPED_LABEL = np.array(SWAPPED)
"""The class (a, b, tie) of a row after A and B are swapped."""


@dataclass(frozen=True)
class Examples:
    """The same rows with A first, `straight`, and with B first, `swapped`.

    `labels` int64 [rows] are those of `straight`; `groups` int64 [rows] number the prompts. `straight_second` and
    `swapped_second` int64 [rows] say where the second text of a pair begins (0: there is none).
    """

    straight: RaggedIds
    swapped: RaggedIds
    labels: np.ndarray
    groups: np.ndarray
    straight_second: np.ndarray
    swapped_second: np.ndarray

    def batch(self, rows: np.ndarray, swap: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the token ids and labels of `rows`, with A and B swapped where `swap` (bool [rows])."""
        ids = [(self.swapped if swapped else self.straight)[row] for row, swapped in zip(rows, swap, strict=True)]
        return ids, self.labels_of(rows, swap)

    def labels_of(self, rows: np.ndarray, swap: np.ndarray) -> np.ndarray:
        """Returns the classes of `rows`, with A and B swapped where `swap` (bool [rows])."""
        return np.where(swap, SWAPPED_LABEL[self.labels[rows]], self.labels[rows])

    def second(self, rows: np.ndarray, swap: np.ndarray) -> np.ndarray | None:
        """Returns where the second text of `rows` begins, swapped where `swap`; None where none has one."""
        found = np.where(swap, self.swapped_second[rows], self.straight_second[rows])
        return found if found.any() else None

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row in its longer order, int64 [rows]."""
        return np.maximum(self.straight.lengths, self.swapped.lengths)


def encode_examples(
    conversations: pa.Table, labels: np.ndarray, groups: np.ndarray, settings: ClassifierSettings
) -> Examples:
    """Tokenizes a table with the columns of `CONVERSATIONS`, exactly as scoring does, in both orders.

    The adapter that `settings` name need not exist yet.
    """
    encoder = ClassifierEncoder(settings.model_copy(update={"adapter": None}))
    exchanged = {"response_a": "response_b", "response_b": "response_a"}
    swapped = conversations.rename_columns([exchanged.get(name, name) for name in conversations.column_names])
    (straight, straight_second), (exchanged_ids, swapped_second) = (
        _encoded(encoder, table) for table in (conversations, swapped)
    )
    return Examples(straight, exchanged_ids, labels, groups, straight_second, swapped_second)


def _encoded(encoder: ClassifierEncoder, conversations: pa.Table) -> tuple[RaggedIds, np.ndarray]:
    encoded = encoder.encode(conversations)
    no_pairs = np.zeros(encoded.num_rows, np.int64)
    second = encoded["second"].to_numpy() if "second" in encoded.column_names else no_pairs
    return RaggedIds.from_arrow(encoded["input_ids"].combine_chunks()), second


def epoch_swaps(rows: int, share: float, seed: tuple[int, int]) -> np.ndarray:
    """Returns which rows an epoch swaps, bool [rows]; with a `share` of one half, every other epoch inverts it."""
    first = np.random.default_rng((seed[0], seed[1] // 2 if share == 0.5 else seed[1])).random(rows) < share
    return ~first if share == 0.5 and seed[1] % 2 else first


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together, and which of them have A and B swapped (bool [rows])."""

    rows: np.ndarray
    swap: np.ndarray
    epoch: int


def plan_steps(lengths: np.ndarray, settings: TrainingSettings, workers: int) -> list[list[Batch]]:
    """Returns the micro-batches of every optimizer step, `workers * accumulate` each; the same for the same seed.

    Worker i computes the i-th of every `workers`. Micro-batches that do not fill a last step are dropped.
    """
    batches: list[Batch] = []
    for epoch in range(math.ceil(settings.epochs)):
        seed = (settings.seed, epoch)
        swaps = epoch_swaps(len(lengths), settings.swap, seed)
        planned = epoch_batches(lengths, settings.batch_tokens, seed)
        share = min(1.0, settings.epochs - epoch)
        batches += [Batch(rows, swaps[rows], epoch) for rows in planned[: math.ceil(share * len(planned))]]
    size = workers * settings.accumulate
    return [batches[start : start + size] for start in range(0, len(batches) - size + 1, size)]


def epoch_ends(steps: list[list[Batch]]) -> set[int]:
    """Returns after how many of the `steps` of `plan_steps` an epoch is over; one may end within a step."""
    first = [step[0].epoch for step in steps]
    return {place for place in range(1, len(steps)) if first[place] > first[place - 1]} | {len(steps)}
