"""The half of the Llama member that holds the model: token ids become P(a), P(b), P(tie)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lmsys_ray.config import LlamaSettings
from lmsys_ray.errors import UnscorableError
from lmsys_ray.members.llama import devices
from lmsys_ray.members.llama.checks import check_embedded
from lmsys_ray.members.llama.loading import Classifier
from lmsys_ray.members.llama.row_form import checked_runner
from lmsys_ray.members.usage import Usage

_SMALLER = "a GPU ran out of memory and makes smaller micro-batches, on which depends what quantized layers give here"


class LlamaScorer:
    """Scores encoded rows in micro-batches of at most `batch_tokens` slots.

    `batch_tokens` starts at the setting's value, or at the largest that a probe finds to fit. `threads` overrides the
    setting.

    On a CPU each core computes a micro-batch of its own where the backbone is a `PackedDecoder`: none waits for another
    within a matrix product, and what a row gets does not depend on how many cores there are. There, too, what rows have
    in common at their beginning is computed once (see `prefixes`). Other backbones run one micro-batch at a time:
    layers of bitsandbytes rearrange their weights in their first call, twice where two threads make it at once, and
    give wrong numbers from then on.

    Before the first row, a few rows must come out as transformers computes them (see `self_check`). Where packed rows
    do not, rows are padded instead. Raises `UsageError` where padded ones do not either, and where the model cannot be
    loaded or believed.
    """

    def __init__(self, settings: LlamaSettings, threads: int | None = None) -> None:
        cores = threads or devices.share_of_cores(settings.threads, settings.replicas)
        devices.use_cores(cores)
        self.settings = settings
        self._runner, self._tried = checked_runner(settings)
        if settings.batch_tokens == "auto":
            self._runner.batch_tokens = self._first_budget()
        if self.classifier.many_at_once and cores > 1:
            devices.use_cores(1)
            self._runner.cores = ThreadPoolExecutor(cores)

    @property
    def classifier(self) -> Classifier:
        return self._runner.classifier

    @property
    def batch_tokens(self) -> int:
        """The budget of a micro-batch in slots; halved for good each time the device runs out of memory."""
        return self._runner.batch_tokens

    @property
    def usage(self) -> Usage:
        return self._runner.usage

    @usage.setter
    def usage(self, usage: Usage) -> None:
        self._runner.usage = usage

    @property
    def notes(self) -> list[str]:
        """Sentences that the user should read once."""
        *failed, used = self._tried
        forms = [f"{'; '.join(map(str, failed))}; padding {used.form.padding} is computed"] if failed else []
        smaller = [_SMALLER] if self._runner.shrunk and self.classifier.packs_matter else []
        return [*self.classifier.notes, *forms, *smaller]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest records of the model as it was loaded here."""
        used = self._tried[-1]
        return {
            "padding": used.form.padding,
            "padding_masked": used.form.masked,
            "largest_logit_difference": used.difference,
            "allowed_logit_difference": self.classifier.expected.allowed,
            "device": self.classifier.device.type,
        }

    def score(self, encoded: pa.Table) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] for a table with the columns of `encode.ENCODED`.

        Raises `UnscorableError` where logits are not finite, a single row does not fit in the device's memory, or a
        token has no embedding.
        """
        rows = encoded["row"].to_numpy()
        ids = encoded["input_ids"].combine_chunks()
        flat, starts = ids.flatten().to_numpy(), ids.offsets.to_numpy() - ids.offsets[0].as_py()
        check_embedded(flat, self.classifier.embedded, self.settings.model)
        logits = self._runner.logits(flat, starts)
        probabilities: np.ndarray = torch.softmax(logits[:, self.classifier.columns], dim=-1).numpy()
        _check_finite(probabilities, rows, self.settings)
        return probabilities

    def _first_budget(self) -> int:
        if self.classifier.packs_matter:
            return devices.FIXED_BATCH_TOKENS
        on_gpu = self.classifier.device.type == "cuda"
        return devices.largest_budget(self._runner.fits) if on_gpu else devices.CPU_BATCH_TOKENS


def _check_finite(probabilities: np.ndarray, rows: np.ndarray, settings: LlamaSettings) -> None:
    bad = rows[~np.isfinite(probabilities).all(axis=1)]
    if len(bad):
        some = ", ".join(map(str, bad[:5])) + (" and more" if len(bad) > 5 else "")
        raise UnscorableError(
            f"{settings.model} gave logits that are not finite for {len(bad)} rows ({some}); "
            "set dtype to bfloat16 or float32"
        )
