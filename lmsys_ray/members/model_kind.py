"""What all kinds with a language model share of their kinds: preflight and placement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.members.artifacts import check_path
from lmsys_ray.members.language_model import LanguageModelSettings
from lmsys_ray.members.placement import placement
from lmsys_ray.members.protocol import Encoder, Lane
from lmsys_ray.storage.files import path_of
from lmsys_ray.storage.packaged import locate

S = TypeVar("S", bound=LanguageModelSettings)


class LanguageModelKind(ABC, Generic[S]):
    """A kind with a model on GPUs; CPU workers tokenize for it, or its replicas do where they run on CPUs."""

    lane: Lane = "device"

    def preflight(self, settings: S, key: str) -> S:
        """Returns the settings with the hub ids of model and adapter pinned to the commits that they mean now.

        Raises `UsageError` where they do not exist, where the member reads rows otherwise than its training, and where
        a local model's tokenizer, template or verdicts cannot be used.
        """
        from lmsys_ray.checkpoints.sources import pinned

        for setting, value in settings.named_artifacts().items():
            check_path(f"{key}.{setting}", value, hub=True)
        self._check_local(key, settings)
        adapter = None if settings.adapter is None else pinned(settings.adapter)
        return settings.model_copy(update={"model": pinned(settings.model), "adapter": adapter})

    @abstractmethod
    def encoder(self, settings: S, cells: CellForm) -> Encoder:
        """Returns what turns conversations into token ids."""

    def _check_local(self, key: str, settings: S) -> None:
        """Checks what lies in local directories; the actors check the rest, which they fetch anyway."""
        from lmsys_ray.checkpoints.as_trained import check_as_trained
        from lmsys_ray.checkpoints.sources import read_scoring

        try:
            if _is_local(settings.adapter or settings.model):
                check_as_trained(read_scoring(settings.model, settings.adapter), settings)
            if _is_local(settings.model) and (settings.adapter is None or _is_local(settings.adapter)):
                self.encoder(settings, "auto")
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None

    def placement(self, settings: S, shards: int, cluster: Resources) -> Pool:
        """Returns a pool of replicas, on GPUs if there are any."""
        return placement(settings, shards, cluster)


def _is_local(name: str) -> bool:
    path = path_of(locate(name))
    return isinstance(path, Path) and path.is_dir()
