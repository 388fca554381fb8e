"""How many actors a pass has, what each reserves of the cluster, and how much work it is handed at once.

Between an actor's saying that it is done and its next item lie two or three rounds of Ray Data's scheduling of 0.1 s
each. An item handed out ahead hides that, but may wait behind a slow one at the end of the pass. Share of the time that
16 replicas computed, 781 items of 0.8 s each (`jobs/simulate.py`, two cores):

    one item at a time                                     78 %
    the same, metadata fetched inline                      89 %
    the same, and scheduling rounds of 0.01 s              96 %    half as much CPU time again in the driver
    one ahead                                              97 %    kept where items are many

Tasks that encode are many processes, each of which imports its libraries first. 6,217 rows through LightGBM on two
cores, in seconds until a first shard and of the whole pass, by how many may encode at once (two rounds):

    as many as find room, six          10.6, 10.8       12.4 in shards of 64 rows, 10.1 in shards of 1,024
    two                                 7.4,  8.3        8.4 and 9.2,               6.3
    one                                 6.8,  7.4        9.3 and 9.2,               6.0    half the cores: kept

A Llama replica on a CPU encodes for itself: 2,000 rows take it a second of some 800, and an idle process of Ray takes
1 % of a core, for it wakes a hundred times a second, as well as the memory of everything it imports.

Computed for 16 and 128 replicas, one of which is half as fast, and gaps of 2 % of an item's time: with 6 items for each
replica one ahead costs up to a sixth of the time, with 24 between nothing and 4 %, and from 49 on it gains 0 to 3 %.
"""

from dataclasses import dataclass
from math import floor

from lmsys_ray.cluster import Resources
from lmsys_ray.config import LightGBMSettings, LlamaSettings
from lmsys_ray.errors import RunError

_ACTOR_CPUS = 0.5
"""Of an actor without a GPU; on two CPUs two such leave room for the tasks that read and encode."""

ENCODE_CPUS = 0.25
"""Of a task that reads or encodes."""

_MANY_ITEMS = 24
"""For each actor: a last item that waits behind another costs little then."""


@dataclass(frozen=True)
class Pool:
    """The actors of a pass."""

    size: int
    """How many are asked for. Those that find no room wait, and make an autoscaler start nodes for them."""
    cpus: float
    """What each reserves."""
    gpus: float = 0
    encoders: int | None = None
    """How many tasks encode for them at once; none: as many as find room. With 0 the actors encode for themselves."""
    whole_machine: bool = False
    """Whether they compute on all cores of a machine alone, so that every other process takes time from them."""

    def in_flight(self, items: int) -> int:
        """Returns how many of `items` an actor is handed at once: the one it works on, and the next where many are.

        The only actor of a pool always has the next one waiting, since nobody else could have taken it.
        """
        return 2 if self.size == 1 or items >= _MANY_ITEMS * self.size else 1


def pool(settings: LlamaSettings | LightGBMSettings, shards: int, cluster: Resources) -> Pool:
    """Returns the pool of a pass over `shards` shards.

    GPU actors reserve no CPU, and LightGBM's half of the CPUs at most, so that reading and encoding always find room.
    Llama replicas on the CPUs of a machine alone reserve what LightGBM's pass beside them leaves: Ray keeps as many
    idle processes as there are whole CPUs that nobody has reserved.

    Where nodes may join, more replicas are asked for than there are GPUs: each starts as soon as a GPU is there.

    Raises `RunError` for more GPUs than this machine has, where Ray runs on it alone.
    """
    half = max(1, cluster.cpus // 2)
    encoders = None if cluster.grows else half
    if isinstance(settings, LightGBMSettings):
        workers = half if settings.workers == "auto" else settings.workers
        return Pool(min(shards, workers), _ACTOR_CPUS, encoders=encoders)
    if not on_gpus(settings, cluster):
        replicas = 1 if settings.replicas == "auto" else min(shards, settings.replicas)
        if cluster.grows:
            return Pool(replicas, _ACTOR_CPUS, encoders=0)
        room = cluster.cpus - half * (_ACTOR_CPUS + ENCODE_CPUS)
        return Pool(replicas, floor(100 * room / replicas) / 100, encoders=0, whole_machine=True)
    if not cluster.grows:
        _check_room(settings, cluster.gpus)
    most = settings.max_replicas if cluster.grows else int(cluster.gpus // settings.gpus_per_replica)
    replicas = most if settings.replicas == "auto" else settings.replicas
    return Pool(min(shards, replicas), 0, settings.gpus_per_replica, encoders)


def on_gpus(settings: LlamaSettings, cluster: Resources) -> bool:
    """Returns whether a member's replicas reserve GPUs."""
    return settings.device == "gpu" or (settings.device == "auto" and (cluster.gpus > 0 or cluster.starts_gpus))


def _check_room(settings: LlamaSettings, gpus: int) -> None:
    replicas = 1 if settings.replicas == "auto" else settings.replicas
    needed = replicas * settings.gpus_per_replica
    if needed > gpus:
        raise RunError(
            f"replicas = {settings.replicas} with gpus_per_replica = {settings.gpus_per_replica:g} need {needed:g} "
            f"GPUs, this machine has {gpus}; lower them, or set device to cpu"
        )
