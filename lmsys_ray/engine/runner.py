"""Runs encoded rows through a classifier, in micro-batches that fit in the memory of its device."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from lmsys_ray.engine import batching, gpu_memory
from lmsys_ray.engine.attention import packed as attention
from lmsys_ray.engine.batching import Padding
from lmsys_ray.engine.classifier import Classifier
from lmsys_ray.engine.pooling import cut_rows, pooled_ends, pooled_positions
from lmsys_ray.engine.prefixes import find_prefixes
from lmsys_ray.engine.usage import Usage
from lmsys_ray.errors import UnscorableError

Forwarded = tuple[list[np.ndarray], list[torch.Tensor]]
"""Micro-batches as indices of rows, and the logits [rows, labels] of each."""


@dataclass
class Runner:
    """A classifier, and how rows are batched for it.

    `batch_tokens` is halved permanently each time the device runs out of memory.
    """

    classifier: Classifier
    padding: Padding
    max_length: int
    batch_tokens: int
    masked: bool = False
    """Whether the model gets a mask of padded slots; it needs none where no token sees those that follow it."""
    cores: ThreadPoolExecutor | None = None
    """Threads that each compute a micro-batch of their own."""
    shrunk: bool = False
    """Whether the device ran out of memory and micro-batches became smaller."""

    def logits(
        self, flat: np.ndarray, starts: np.ndarray, types: np.ndarray | None = None
    ) -> tuple[torch.Tensor, Usage]:
        """Returns float32 logits [rows, labels] on the CPU, and what was computed for them.

        Row i is `flat[starts[i]:starts[i + 1]]`; `types` [tokens] is 1 for tokens of the second text of a pair, which
        encoders tell apart. Raises `UnscorableError` where a single row does not fit in the
        memory of the device.
        """
        if self.classifier.causal:  # Tokens after the pooled one change nothing.
            flat, starts = cut_rows(flat, starts, pooled_ends(flat, starts, self.classifier.pooling_pad))
        batches, logits, usage = self._forward_all(flat, starts, types)
        if not batches:
            return torch.empty(0, len(self.classifier.columns)), usage
        # One copy at the end: copying each micro-batch would wait for the device each time.
        gathered = torch.cat(logits).cpu()
        ordered = torch.empty_like(gathered)
        ordered[torch.from_numpy(np.concatenate(batches))] = gathered
        return ordered, usage

    @property
    def _runs_concurrently(self) -> bool:
        return self.classifier.runs_concurrently and self.padding == "none"

    def _forward_all(
        self, flat: np.ndarray, starts: np.ndarray, types: np.ndarray | None
    ) -> tuple[list[np.ndarray], list[torch.Tensor], Usage]:
        lengths = np.diff(starts)
        shared = np.zeros_like(lengths)
        if self._runs_concurrently:
            units, shared = find_prefixes(flat, starts, self.batch_tokens)
            batches = _plan_units(units, lengths - shared, self.batch_tokens)
        else:
            batches = self._plan(np.arange(len(lengths)), lengths)

        def forward(batch: np.ndarray) -> torch.Tensor:
            second = None if types is None else [types[starts[i] : starts[i + 1]] for i in batch]
            rows = [flat[starts[i] + shared[i] : starts[i + 1]] for i in batch]
            return self._forward(rows, shared[batch].tolist(), second)

        if self._runs_concurrently:
            logits = list(self.cores.map(forward, batches) if self.cores else map(forward, batches))
        else:
            batches, logits = self._forward_sequentially(forward, batches, lengths)
        usage = Usage()
        for batch in batches:
            own = lengths[batch] - shared[batch]
            usage.add(lengths[batch], self._slots(own), self.batch_tokens, int(shared[batch].sum()))
        return batches, logits, usage

    def _forward_sequentially(
        self, forward: Callable[[np.ndarray], torch.Tensor], batches: list[np.ndarray], lengths: np.ndarray
    ) -> Forwarded:
        """Runs `batches` one after another; when memory runs out, the rest is planned again in smaller ones."""
        queue, done, logits = deque(batches), [], []
        while queue:
            batch = queue.popleft()
            try:
                logits.append(forward(batch))
                done.append(batch)
                continue
            except RuntimeError as error:  # which keeps the tensors of the failed pass alive while it is handled
                if not gpu_memory.is_out_of_memory(error):
                    raise
            self._shrink(batch, lengths)
            queue = deque(self._plan(np.concatenate([batch, *queue]), lengths))
        return done, logits

    def fits(self, budget: int) -> bool:
        """Returns whether a micro-batch of `budget` tokens, in rows of the largest length, fits on the GPU."""
        length = min(budget, self.max_length)
        rows = [np.full(length, self.classifier.pad_id, np.int32)] * max(1, budget // length)
        try:
            self._forward(rows)
            torch.cuda.synchronize()
            return True
        except RuntimeError as error:
            if not gpu_memory.is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        return False

    def _plan(self, rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Returns micro-batches of `rows`; none mixes rows on both sides of `Classifier.long_beyond`."""
        long = lengths[rows] > self.classifier.long_beyond
        planned = []
        for group in (rows[long], rows[~long]):
            batches = batching.plan(lengths[group], self.batch_tokens, self.padding, self._widest(lengths[group]))
            planned += [group[batch] for batch in batches]
        return planned

    def _widest(self, lengths: np.ndarray) -> int:
        """Returns the width to which `max_length` pads rows that are on one side of `Classifier.long_beyond`."""
        longest = int(lengths.max(initial=0))
        beyond = self.classifier.long_beyond
        return int(min(self.max_length, beyond)) if longest <= beyond else self.max_length

    def _slots(self, lengths: np.ndarray) -> int:
        return batching.slots(lengths, self.padding, self._widest(lengths))

    def _shrink(self, batch: np.ndarray, lengths: np.ndarray) -> None:
        torch.cuda.empty_cache()
        if len(batch) == 1:
            raise UnscorableError(
                f"a row of {lengths[batch[0]]} tokens does not fit in the memory of the GPU; "
                "lower max_length, set quantization to int8 or nf4, or give a replica more GPUs"
            )
        self.batch_tokens = max(1, min(self.batch_tokens, self._slots(lengths[batch])) // 2)
        self.shrunk = True

    @torch.inference_mode()
    def _forward(
        self, rows: list[np.ndarray], shared: Sequence[int] = (), types: list[np.ndarray] | None = None
    ) -> torch.Tensor:
        """Returns float32 logits [rows, labels], on the device, of one micro-batch.

        `rows` lack the first `shared` tokens, which each has in common with the row before it. `types` are those of
        their tokens, for encoders.
        """
        lengths = np.array([len(row) for row in rows])
        pooled = pooled_positions(rows, self.classifier.pooling_pad)
        device, layout = self.classifier.device, None
        given: dict[str, torch.Tensor] = {}
        if self.padding == "none":
            ids, last = np.concatenate(rows)[None], np.cumsum(lengths) - lengths + pooled
            layout = attention.layout(lengths.tolist(), device, shared)
        else:
            ids = self._padded(rows, lengths, self.classifier.pad_id)
            last = np.arange(len(rows)) * ids.shape[1] + pooled
            if self.masked:
                real = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
                given["mask"] = attention.to_device(real.long(), device)
            if types is not None:
                given["types"] = attention.to_device(torch.from_numpy(self._padded(types, lengths, 0)), device)
        inputs = [attention.to_device(torch.from_numpy(array), device) for array in (ids, last)]
        hidden = self.classifier.backbone(*inputs, layout, **given)
        return self.classifier.head(hidden.float()).float()

    def _padded(self, rows: list[np.ndarray], lengths: np.ndarray, filler: int) -> np.ndarray:
        """Returns values [rows, width], padded on the right with `filler`."""
        width = self._widest(lengths) if self.padding == "max_length" else int(lengths.max())
        padded = np.full((len(rows), width), filler, np.int32)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return padded


def _plan_units(units: list[np.ndarray], tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of whole units, as indices of rows; `tokens` [rows] is how many each row computes."""
    loads = np.array([tokens[unit].sum() for unit in units], np.int64)
    return [np.concatenate([units[i] for i in batch]) for batch in batching.plan_evenly(loads, batch_tokens)]
