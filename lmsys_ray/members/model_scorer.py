"""What all kinds with a language model share of their scorers: a model that turns token ids into outputs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lmsys_ray.checkpoints.checks import check_embedded
from lmsys_ray.checkpoints.row_form import Load, checked, checked_runner
from lmsys_ray.checkpoints.wanted import Wanted
from lmsys_ray.engine import cpu, devices
from lmsys_ray.engine.classifier import Classifier
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.engine.usage import Usage
from lmsys_ray.errors import UnscorableError
from lmsys_ray.members.language_model import LanguageModelSettings

_SMALLER = "a GPU ran out of memory; its micro-batches are smaller now, and scores of quantized layers depend on them"


class ModelScorer:
    """A loaded model that computes sequences in micro-batches of at most `batch_tokens` slots.

    The budget is the setting's, or the largest that fits the GPU. On a CPU with a `PackedDecoder` each core computes
    micro-batches of its own and shared prefixes are computed once. Other backbones run one micro-batch at a time, since
    layers of bitsandbytes rearrange their weights in their first call, which two threads at once would corrupt.

    First a few rows must match transformers (see `self_check`); where packed rows do not, rows are padded. Raises
    `UsageError` where these do not either, and where the model cannot be loaded or trusted.
    """

    def __init__(self, settings: LanguageModelSettings, load: Wanted | Load, threads: int | None = None) -> None:
        """Loads the model: a classifier, of which what is wanted is read, or what `load` loads.

        `threads` overrides the setting.
        """
        cores = threads or cpu.share_of_cores(settings.threads, settings.replicas)
        cpu.use_cores(cores)
        self._model = settings.model
        read = checked_runner(settings, load) if isinstance(load, Wanted) else checked(settings, load)
        self._runner, self._tried = read
        if settings.batch_tokens == "auto":
            self._runner.batch_tokens = self._first_budget()
        if self.classifier.runs_concurrently and cores > 1:
            cpu.use_cores(1)
            self._runner.cores = ThreadPoolExecutor(cores)

    @property
    def classifier(self) -> Classifier:
        """The loaded model."""
        return self._runner.classifier

    @property
    def batch_tokens(self) -> int:
        """The budget of a micro-batch in slots; halved permanently each time the device runs out of memory."""
        return self._runner.batch_tokens

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        *failed, used = self._tried
        layouts = [f"{'; '.join(map(str, failed))}; padding {used.layout.padding} is used"] if failed else []
        smaller = [_SMALLER] if self._runner.shrunk and self.classifier.depends_on_batch else []
        return [*self.classifier.notes, *layouts, *smaller]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of the model as it was loaded here."""
        used = self._tried[-1]
        return {
            "padding": used.layout.padding,
            "padding_masked": used.layout.masked,
            "largest_logit_difference": used.difference,
            "allowed_logit_difference": self.classifier.expected.allowed,
            "device": self.classifier.device.type,
        }

    def outputs(self, ids: RaggedIds, types: np.ndarray | None = None) -> tuple[np.ndarray, Usage]:
        """Returns the outputs of sequences, float32 [sequences, outputs] in the order that is wanted, and the usage.

        `types` [tokens] is 1 for the tokens of the second text of a pair. Raises `UnscorableError` where a single
        sequence does not fit in the device's memory, or a token has no embedding.
        """
        check_embedded(ids.flat, self.classifier.embedded, self._model)
        logits, usage = self._runner.logits(ids.flat, ids.starts, types)
        found: np.ndarray = logits[:, self.classifier.columns].numpy()
        return found, usage

    def check_finite(self, outputs: np.ndarray, rows: np.ndarray) -> None:
        """Raises `UnscorableError` where one of `outputs` [rows, ...] is not finite; `rows` are their numbers."""
        bad = rows[~np.isfinite(outputs).all(axis=1)]
        if len(bad):
            some = ", ".join(map(str, bad[:5])) + (" and more" if len(bad) > 5 else "")
            raise UnscorableError(
                f"{self._model} gave logits that are not finite for {len(bad)} rows ({some}); "
                "set dtype to bfloat16 or float32"
            )

    def _first_budget(self) -> int:
        if self.classifier.depends_on_batch:
            return devices.FIXED_BATCH_TOKENS
        on_gpu = self.classifier.device.type == "cuda"
        return devices.largest_budget(self._runner.fits) if on_gpu else devices.CPU_BATCH_TOKENS
