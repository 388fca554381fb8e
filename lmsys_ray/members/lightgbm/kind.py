"""The kind `lightgbm`: gradient-boosted trees, scored by CPU workers."""

from lmsys_ray.cluster.pool import ACTOR_CPUS, Pool, encoders_at_once, half_of
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.members.artifacts import check_path
from lmsys_ray.members.lightgbm.openmp import check_openmp
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.protocol import Lane, Scorer


class LightGBMKind:
    """Gradient-boosted trees; the workers read conversations as they are, so there is no encoder."""

    settings = LightGBMSettings
    lane: Lane = "cpu"

    def preflight(self, settings: LightGBMSettings, key: str) -> LightGBMSettings:
        """Returns the settings; raises `UsageError` where the artefacts or a library do not exist."""
        check_openmp()
        check_path(f"{key}.artifacts", settings.artifacts, hub=False)
        return settings

    def placement(self, settings: LightGBMSettings, shards: int, cluster: Resources) -> Pool:
        """Returns a pool on at most half of the CPUs, so that reading and encoding always find room."""
        workers = half_of(cluster) if settings.workers == "auto" else settings.workers
        return Pool(min(shards, workers), ACTOR_CPUS, encoders=encoders_at_once(cluster))

    def encoder(self, settings: LightGBMSettings, cells: CellForm) -> None:
        """Returns None: features are computed where they are scored."""

    def scorer(self, settings: LightGBMSettings, cells: CellForm) -> Scorer:
        """Loads the boosters."""
        check_openmp()  # a worker may be on another machine than the driver
        from lmsys_ray.members.lightgbm.scorer import LightGBMScorer

        return LightGBMScorer(settings, cells)


KIND = LightGBMKind()
