"""How many actors score with a language model, and what each reserves of the cluster."""

from math import floor
from typing import Literal, Protocol

from lmsys_ray.cluster.pool import ACTOR_CPUS, ENCODE_CPUS, Pool, encoders_at_once, half_of
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.errors import UsageError


class ReplicaSettings(Protocol):
    """The settings that place the replicas of a model."""

    @property
    def device(self) -> Literal["auto", "cpu", "gpu"]: ...

    @property
    def replicas(self) -> int | Literal["auto"]: ...

    @property
    def max_replicas(self) -> int: ...

    @property
    def gpus_per_replica(self) -> float: ...


def placement(settings: ReplicaSettings, shards: int, cluster: Resources) -> Pool:
    """Returns the pool of a pass over `shards` shards.

    GPU actors reserve no CPU, so that reading and encoding always find room. CPU replicas on a single machine reserve
    what LightGBM's pass beside them leaves, since Ray keeps an idle process for each whole CPU that is not reserved.
    Where nodes may join, more replicas are requested than there are GPUs; each starts as soon as it gets one. Raises
    `UsageError` for more GPUs than a single machine has.
    """
    if not on_gpus(settings, cluster):
        replicas = 1 if settings.replicas == "auto" else min(shards, settings.replicas)
        if cluster.grows:
            return Pool(replicas, ACTOR_CPUS, encoders=0)
        room = cluster.cpus - half_of(cluster) * (ACTOR_CPUS + ENCODE_CPUS)
        return Pool(replicas, floor(100 * room / replicas) / 100, encoders=0, whole_machine=True)
    if not cluster.grows:
        _check_room(settings, cluster.gpus)
    most = settings.max_replicas if cluster.grows else int(cluster.gpus // settings.gpus_per_replica)
    replicas = most if settings.replicas == "auto" else settings.replicas
    return Pool(min(shards, replicas), 0, settings.gpus_per_replica, encoders_at_once(cluster))


def on_gpus(settings: ReplicaSettings, cluster: Resources) -> bool:
    """Returns whether a member's replicas reserve GPUs."""
    return settings.device == "gpu" or (settings.device == "auto" and (cluster.gpus > 0 or cluster.starts_gpus))


def _check_room(settings: ReplicaSettings, gpus: int) -> None:
    replicas = 1 if settings.replicas == "auto" else settings.replicas
    needed = replicas * settings.gpus_per_replica
    if needed > gpus:
        raise UsageError(
            f"replicas = {settings.replicas} with gpus_per_replica = {settings.gpus_per_replica:g} need {needed:g} "
            f"GPUs, this machine has {gpus}; lower them, or set device to cpu"
        )
