"""The half of the Llama member that holds the model: token ids become P(a), P(b), P(tie)."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import torch

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UnscorableError
from lmsys_ray.members.llama import attention, devices, gpu_memory, packing
from lmsys_ray.members.llama.decoder import PackedDecoder
from lmsys_ray.members.llama.loading import load_classifier
from lmsys_ray.members.llama.prefixes import find_prefixes
from lmsys_ray.members.usage import Usage

Forwarded = tuple[list[np.ndarray], list[torch.Tensor]]
"""Micro-batches as indices of rows, and the logits [rows, 3] of each."""

_SMALLER = "a GPU ran out of memory and makes smaller micro-batches, on which depends what quantized layers give here"


class LlamaScorer:
    """Scores encoded rows in micro-batches of at most `batch_tokens` slots.

    `usage` counts rows, tokens, slots and micro-batches. `batch_tokens` starts at the setting's value, or at the
    largest that a probe finds to fit, and is halved for good each time the device runs out of memory. `threads`
    overrides the setting.

    On a CPU each core computes a micro-batch of its own where the backbone is a `PackedDecoder`: none waits for another
    within a matrix product, and what a row gets does not depend on how many cores there are. There, too, what rows have
    in common at their beginning is computed once (see `prefixes`). Other backbones run one micro-batch at a time:
    layers of bitsandbytes rearrange their weights in their first call, twice where two threads make it at once, and
    give wrong numbers from then on.

    Raises `UsageError` where the model cannot be loaded or believed.
    """

    def __init__(self, settings: LlamaSettings, threads: int | None = None) -> None:
        cores = threads or devices.share_of_cores(settings.threads, settings.replicas)
        devices.use_cores(cores)
        self.settings = settings
        self.usage = Usage()
        self.classifier = load_classifier(settings)
        self.notes = list(self.classifier.notes)
        self.batch_tokens = self._first_budget() if settings.batch_tokens == "auto" else settings.batch_tokens
        self._cores: ThreadPoolExecutor | None = None
        packed = isinstance(self.classifier.backbone, PackedDecoder)
        self._for_cores = packed and self.classifier.device.type != "cuda"
        if self._for_cores and cores > 1:
            devices.use_cores(1)
            self._cores = ThreadPoolExecutor(cores)

    def score(self, encoded: pa.Table) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] for a table with the columns of `encode.ENCODED`.

        Raises `UnscorableError` where logits are not finite, or a single row does not fit in the device's memory.
        """
        rows = encoded["row"].to_numpy()
        ids = encoded["input_ids"].combine_chunks()
        flat, starts = ids.flatten().to_numpy(), ids.offsets.to_numpy() - ids.offsets[0].as_py()
        batches, logits = self._forward_all(flat, starts)
        if not batches:
            return np.empty((0, 3), np.float32)
        # One copy at the end: fetching each micro-batch would wait for the device each time.
        gathered = torch.cat(logits).cpu()
        probabilities = np.empty((len(rows), 3), np.float32)
        order = np.concatenate(batches)
        probabilities[order] = torch.softmax(gathered[:, self.classifier.columns], dim=-1).numpy()
        _check_finite(probabilities, rows, self.settings)
        return probabilities

    def _forward_all(self, flat: np.ndarray, starts: np.ndarray) -> Forwarded:
        """Runs all rows of `flat` token ids, row i being starts[i]:starts[i + 1]; returns indices and logits."""
        lengths = np.diff(starts)
        shared = np.zeros_like(lengths)
        if self._for_cores:
            units, shared = find_prefixes(flat, starts, self.batch_tokens)
            batches = _plan_units(units, lengths - shared, self.batch_tokens)
        else:
            batches = self._plan(np.arange(len(lengths)), lengths)

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self._forward([flat[starts[i] + shared[i] : starts[i + 1]] for i in batch], shared[batch].tolist())

        if self._for_cores:
            logits = list(self._cores.map(forward, batches) if self._cores else map(forward, batches))
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

    def _first_budget(self) -> int:
        if self.classifier.packs_matter:
            return devices.FIXED_BATCH_TOKENS
        on_gpu = self.classifier.device.type == "cuda"
        return devices.largest_budget(self._fits) if on_gpu else devices.CPU_BATCH_TOKENS

    def _fits(self, budget: int) -> bool:
        """Returns whether the device holds a micro-batch of `budget` tokens in rows as long as they get."""
        length = min(budget, self.settings.max_length)
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
        batches = packing.plan(lengths[rows], self.batch_tokens, self.settings.padding, self.settings.max_length)
        return [rows[batch] for batch in batches]

    def _slots(self, lengths: np.ndarray) -> int:
        return packing.slots(lengths, self.settings.padding, self.settings.max_length)

    def _shrink(self, batch: np.ndarray, lengths: np.ndarray) -> None:
        torch.cuda.empty_cache()
        if len(batch) == 1:
            raise UnscorableError(
                f"a row of {lengths[batch[0]]} tokens does not fit in the memory of the GPU; "
                "lower max_length, set quantization to int8 or nf4, or give a replica more GPUs"
            )
        self.batch_tokens = max(1, min(self.batch_tokens, self._slots(lengths[batch])) // 2)
        if self.classifier.packs_matter and _SMALLER not in self.notes:
            self.notes.append(_SMALLER)

    @torch.inference_mode()
    def _forward(self, rows: list[np.ndarray], shared: Sequence[int] = ()) -> torch.Tensor:
        """Returns float32 logits [rows, 3], on the device, of one micro-batch.

        `rows` are without the tokens that each shares with the one before it, `shared` of them.
        """
        lengths = np.array([len(row) for row in rows])
        device, layout = self.classifier.device, None
        if self.settings.padding == "none":
            ids, last = np.concatenate(rows)[None], np.cumsum(lengths) - 1
            layout = attention.layout(lengths.tolist(), device, shared)
        else:
            ids, last = self._padded(rows, lengths)
        inputs = [attention.to_device(torch.from_numpy(array), device) for array in (ids, last)]
        pooled = self.classifier.backbone(*inputs, layout)
        return self.classifier.head(pooled.float()).float()

    def _padded(self, rows: list[np.ndarray], lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids [rows, width], padded on the right, and where among them each row's last token lies [rows]."""
        width = self.settings.max_length if self.settings.padding == "max_length" else int(lengths.max())
        padded = np.full((len(rows), width), self.classifier.pad_id, np.int32)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return padded, np.arange(len(rows)) * width + lengths - 1


def _plan_units(units: list[np.ndarray], tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Returns micro-batches of whole units, as indices of rows; `tokens` [rows] are those that each row computes."""
    loads = np.array([tokens[unit].sum() for unit in units], np.int64)
    return [np.concatenate([units[i] for i in batch]) for batch in packing.plan_evenly(loads, batch_tokens)]


def _check_finite(probabilities: np.ndarray, rows: np.ndarray, settings: LlamaSettings) -> None:
    bad = rows[~np.isfinite(probabilities).all(axis=1)]
    if len(bad):
        some = ", ".join(map(str, bad[:5])) + (" and more" if len(bad) > 5 else "")
        raise UnscorableError(
            f"{settings.model} gave logits that are not finite for {len(bad)} rows ({some}); "
            "set dtype to bfloat16 or float32"
        )
