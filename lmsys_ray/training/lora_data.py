"""Labelled conversations as token ids, in both orders of A and B, and the batches that an epoch takes them in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lmsys_ray.config import LlamaSettings
from lmsys_ray.members.llama import packing
from lmsys_ray.members.llama.encode import LlamaEncoder
from lmsys_ray.training.lora_settings import LoraSettings

SWAPPED_LABEL = np.array([1, 0, 2])
"""The class of a row (a, b, tie) once A and B have changed sides."""

_WINDOW_BATCHES = 32


@dataclass(frozen=True)
class Ragged:
    """Rows of token ids laid end to end: row i is `flat[starts[i]:starts[i + 1]]`."""

    flat: np.ndarray
    starts: np.ndarray

    def __getitem__(self, row: int) -> np.ndarray:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Examples:
    """The same rows with A first, `straight`, and with B first, `swapped`; `labels` int64 [rows] are the former's.

    `groups` int64 [rows] are numbers for their prompts.
    """

    straight: Ragged
    swapped: Ragged
    labels: np.ndarray
    groups: np.ndarray

    def batch(self, rows: np.ndarray, swap: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the token ids and labels of `rows`, with A and B swapped where `swap` (bool [rows])."""
        ids = [(self.swapped if turned else self.straight)[row] for row, turned in zip(rows, swap, strict=True)]
        return ids, self.labels_of(rows, swap)

    def labels_of(self, rows: np.ndarray, swap: np.ndarray) -> np.ndarray:
        """Returns the classes of `rows`, with A and B swapped where `swap` (bool [rows])."""
        return np.where(swap, SWAPPED_LABEL[self.labels[rows]], self.labels[rows])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row in its longer order, int64 [rows]."""
        return np.maximum(self.straight.lengths, self.swapped.lengths)


def encode_examples(
    conversations: pa.Table, labels: np.ndarray, groups: np.ndarray, settings: LlamaSettings
) -> Examples:
    """Tokenizes a table with the columns of `CONVERSATIONS`, exactly as scoring does, in both orders.

    The adapter that `settings` name need not be there yet.
    """
    encoder = LlamaEncoder(settings.model_copy(update={"adapter": None}))
    exchanged = {"response_a": "response_b", "response_b": "response_a"}
    swapped = conversations.rename_columns([exchanged.get(name, name) for name in conversations.column_names])
    return Examples(_encoded(encoder, conversations), _encoded(encoder, swapped), labels, groups)


def _encoded(encoder: LlamaEncoder, conversations: pa.Table) -> Ragged:
    ids = encoder.encode(conversations)["input_ids"].combine_chunks()
    return Ragged(ids.flatten().to_numpy(), ids.offsets.to_numpy() - ids.offsets[0].as_py())


def epoch_batches(lengths: np.ndarray, batch_tokens: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """Returns the micro-batches of one epoch, as arrays of rows; `seed` is (seed, epoch).

    Rows are shuffled, and rows of like length are put together within windows of some batches: hardly any padding, and
    still another company for each row in each epoch. The order of the batches is random.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    rows = max(1, int(_WINDOW_BATCHES * batch_tokens / max(1.0, lengths.mean())))
    batches = []
    for start in range(0, len(order), rows):
        window = order[start : start + rows]
        planned = packing.plan(lengths[window], batch_tokens, "longest", int(lengths.max()))
        batches += [window[batch] for batch in planned]
    return [batches[i] for i in random.permutation(len(batches))]


def epoch_swaps(rows: int, share: float, seed: tuple[int, int]) -> np.ndarray:
    """Returns which rows an epoch shows swapped, bool [rows]; with a `share` of one half, each next epoch turns all."""
    first = np.random.default_rng((seed[0], seed[1] // 2 if share == 0.5 else seed[1])).random(rows) < share
    return ~first if share == 0.5 and seed[1] % 2 else first


@dataclass(frozen=True)
class Batch:
    """Rows that are computed at once, and which of them are shown with A and B swapped (bool [rows])."""

    rows: np.ndarray
    swap: np.ndarray


def plan_steps(lengths: np.ndarray, settings: LoraSettings, workers: int) -> list[list[Batch]]:
    """Returns the micro-batches of every optimizer step, `workers * accumulate` each; the same for the same seed.

    Worker i computes every `workers`-th one from the i-th on. What does not fill a step at the end is left out.
    """
    batches: list[Batch] = []
    for epoch in range(math.ceil(settings.epochs)):
        seed = (settings.seed, epoch)
        swaps = epoch_swaps(len(lengths), settings.swap, seed)
        planned = epoch_batches(lengths, settings.batch_tokens, seed)
        share = min(1.0, settings.epochs - epoch)
        batches += [Batch(rows, swaps[rows]) for rows in planned[: math.ceil(share * len(planned))]]
    size = workers * settings.accumulate
    return [batches[start : start + size] for start in range(0, len(batches) - size + 1, size)]


def validation_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of indices into `lengths`, rows of like length together."""
    return packing.plan(lengths, batch_tokens, "longest", int(lengths.max(initial=0)))
