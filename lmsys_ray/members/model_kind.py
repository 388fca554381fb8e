"""What all kinds with a language model share of their kinds: preflight and placement."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.errors import UsageError
from lmsys_ray.members.artifacts import check_path
from lmsys_ray.members.language_model import LanguageModelSettings
from lmsys_ray.members.placement import placement
from lmsys_ray.members.protocol import Lane
from lmsys_ray.storage.files import path_of
from lmsys_ray.storage.packaged import locate

S = TypeVar("S", bound=LanguageModelSettings)


class LanguageModelKind(Generic[S]):
    """A kind with a model on GPUs; CPU workers tokenize for it, or its replicas do where they run on CPUs."""

    lane: Lane = "device"

    def preflight(self, settings: S, key: str) -> S:
        """Returns the settings with the hub ids of model and adapter pinned to the commits that they mean now.

        Raises `UsageError` where they do not exist, and where the member reads rows otherwise than its training.
        """
        from lmsys_ray.checkpoints.sources import pinned

        for setting, value in settings.named_artifacts().items():
            check_path(f"{key}.{setting}", value, hub=True)
        _check_as_trained(key, settings)
        adapter = None if settings.adapter is None else pinned(settings.adapter)
        return settings.model_copy(update={"model": pinned(settings.model), "adapter": adapter})

    def placement(self, settings: S, shards: int, cluster: Resources) -> Pool:
        """Returns a pool of replicas, on GPUs if there are any."""
        return placement(settings, shards, cluster)


def _check_as_trained(key: str, settings: LanguageModelSettings) -> None:
    """Checks a local adapter or model against its note; others are checked by the actors, which fetch them anyway."""
    from lmsys_ray.checkpoints.as_trained import check_as_trained
    from lmsys_ray.checkpoints.sources import read_scoring

    path = path_of(locate(settings.adapter or settings.model))
    if isinstance(path, Path) and path.is_dir():
        try:
            check_as_trained(read_scoring(settings.model, settings.adapter), settings)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from None
