"""Runs encoded rows through a classifier, in micro-batches that its device holds."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from lmsys_ray.errors import UnscorableError
from lmsys_ray.members.llama import attention, gpu_memory, packing
from lmsys_ray.members.llama.loading import Classifier
from lmsys_ray.members.llama.packing import Padding
from lmsys_ray.members.llama.pooling import cut_rows, pooled_ends, pooled_positions
from lmsys_ray.members.llama.prefixes import find_prefixes
from lmsys_ray.members.usage import Usage

Forwarded = tuple[list[np.ndarray], list[torch.Tensor]]
"""Micro-batches as indices of rows, and the logits [rows, labels] of each."""


@dataclass
class Runner:
    """A classifier, how rows are put together for it, and what was computed.

    `batch_tokens` is halved for good each time the device runs out of memory.
    """

    classifier: Classifier
    padding: Padding
    max_length: int
    batch_tokens: int
    masked: bool = False
    """Whether the model is told which slots are padding; where no token sees what follows it, it need not know."""
    cores: ThreadPoolExecutor | None = None
    """Threads that each compute a micro-batch of their own."""
    usage: Usage = field(default_factory=Usage)
    shrunk: bool = False
    """Whether the device ran out of memory, so that micro-batches became smaller."""

    def logits(self, flat: np.ndarray, starts: np.ndarray) -> torch.Tensor:
        """Returns float32 logits [rows, labels] on the CPU; row i is `flat[starts[i]:starts[i + 1]]`.

        Raises `UnscorableError` where a single row does not fit in the device's memory.
        """
        if self.classifier.causal:  # What follows the pooled token changes nothing.
            flat, starts = cut_rows(flat, starts, pooled_ends(flat, starts, self.classifier.pooling_pad))
        batches, logits = self._forward_all(flat, starts)
        if not batches:
            return torch.empty(0, len(self.classifier.columns))
        # One copy at the end: fetching each micro-batch would wait for the device each time.
        gathered = torch.cat(logits).cpu()
        ordered = torch.empty_like(gathered)
        ordered[torch.from_numpy(np.concatenate(batches))] = gathered
        return ordered

    @property
    def _many_at_once(self) -> bool:
        return self.classifier.many_at_once and self.padding == "none"

    def _forward_all(self, flat: np.ndarray, starts: np.ndarray) -> Forwarded:
        lengths = np.diff(starts)
        shared = np.zeros_like(lengths)
        if self._many_at_once:
            units, shared = find_prefixes(flat, starts, self.batch_tokens)
            batches = _plan_units(units, lengths - shared, self.batch_tokens)
        else:
            batches = self._plan(np.arange(len(lengths)), lengths)

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self._forward([flat[starts[i] + shared[i] : starts[i + 1]] for i in batch], shared[batch].tolist())

        if self._many_at_once:
            logits = list(self.cores.map(forward, batches) if self.cores else map(forward, batches))
        else:
            batches, logits = self._forward_in_turn(forward, batches, lengths)
        for batch in batches:
            own = lengths[batch] - shared[batch]
            self.usage.add(lengths[batch], self._slots(own), self.batch_tokens, int(shared[batch].sum()))
        return batches, logits

    def _forward_in_turn(
        self, forward: Callable[[np.ndarray], torch.Tensor], batches: list[np.ndarray], lengths: np.ndarray
    ) -> Forwarded:
        """Runs `batches` one after another, cut anew where the device's memory does not suffice."""
        queue, done, logits = deque(batches), [], []
        while queue:
            batch = queue.popleft()
            try:
                logits.append(forward(batch))
                done.append(batch)
                continue
            except RuntimeError as error:  # which holds the tensors of the failed pass for as long as it is handled
                if not gpu_memory.is_out_of_memory(error):
                    raise
            self._shrink(batch, lengths)
            queue = deque(self._plan(np.concatenate([batch, *queue]), lengths))
        return done, logits

    def fits(self, budget: int) -> bool:
        """Returns whether a GPU holds a micro-batch of `budget` tokens in rows as long as they get."""
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
        """Returns micro-batches of `rows`; none has rows of both kinds of rotary angles (see `Classifier`)."""
        long = lengths[rows] > self.classifier.long_beyond
        planned = []
        for group in (rows[long], rows[~long]):
            batches = packing.plan(lengths[group], self.batch_tokens, self.padding, self._widest(lengths[group]))
            planned += [group[batch] for batch in batches]
        return planned

    def _widest(self, lengths: np.ndarray) -> int:
        """Returns the width to which `max_length` pads rows of one kind of rotary angles."""
        longest = int(lengths.max(initial=0))
        beyond = self.classifier.long_beyond
        return int(min(self.max_length, beyond)) if longest <= beyond else self.max_length

    def _slots(self, lengths: np.ndarray) -> int:
        return packing.slots(lengths, self.padding, self._widest(lengths))

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
    def _forward(self, rows: list[np.ndarray], shared: Sequence[int] = ()) -> torch.Tensor:
        """Returns float32 logits [rows, labels], on the device, of one micro-batch.

        `rows` are without the tokens that each shares with the one before it, `shared` of them.
        """
        lengths = np.array([len(row) for row in rows])
        pooled = pooled_positions(rows, self.classifier.pooling_pad)
        device, layout, mask = self.classifier.device, None, None
        if self.padding == "none":
            ids, last = np.concatenate(rows)[None], np.cumsum(lengths) - lengths + pooled
            layout = attention.layout(lengths.tolist(), device, shared)
        else:
            ids = self._padded(rows, lengths)
            last = np.arange(len(rows)) * ids.shape[1] + pooled
            if self.masked:
                mask = attention.to_device(torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).long(), device)
        inputs = [attention.to_device(torch.from_numpy(array), device) for array in (ids, last)]
        hidden = self.classifier.backbone(*inputs, layout, **({} if mask is None else {"mask": mask}))
        return self.classifier.head(hidden.float()).float()

    def _padded(self, rows: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
        """Returns ids [rows, width], padded on the right."""
        width = self._widest(lengths) if self.padding == "max_length" else int(lengths.max())
        padded = np.full((len(rows), width), self.classifier.pad_id, np.int32)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return padded


def _plan_units(units: list[np.ndarray], tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of whole units, as indices of rows; `tokens` [rows] are those that each row computes."""
    loads = np.array([tokens[unit].sum() for unit in units], np.int64)
    return [np.concatenate([units[i] for i in batch]) for batch in packing.plan_evenly(loads, batch_tokens)]
