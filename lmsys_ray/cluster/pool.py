"""The actors of a pass: how many there are, what each reserves, and how many items each is handed at once.

Measurements: docs/lab/pools.md
"""

from dataclasses import dataclass

from lmsys_ray.cluster.resources import Resources

ACTOR_CPUS = 0.5
"""CPUs that an actor without a GPU reserves; two of them leave room for tasks on a machine with two CPUs."""

ENCODE_CPUS = 0.25
"""CPUs that a task reserves to read or encode."""

_MANY_ITEMS = 24
"""Items for each actor from which a last item that waits for another costs little."""


@dataclass(frozen=True)
class Pool:
    """The actors of a pass."""

    size: int
    """How many are requested. Those without room wait, and make an autoscaler start nodes for them."""
    cpus: float
    """CPUs that each reserves."""
    gpus: float = 0
    """GPUs that each reserves."""
    encoders: int | None = None
    """How many tasks encode at once; None: as many as there is room for; 0: the actors encode for themselves."""
    whole_machine: bool = False
    """Whether one computes on all cores of its machine, so that every other process takes time from it."""
    excluded: frozenset[str] = frozenset()
    """Ids of nodes on which neither the actors nor their encoding tasks may run."""

    def in_flight(self, items: int) -> int:
        """Returns how many of `items` an actor is handed at once: one, or with many items also the next.

        The only actor of a pool always has the next one waiting, since no other could take it.
        """
        return 2 if self.size == 1 or items >= _MANY_ITEMS * self.size else 1


def half_of(cluster: Resources) -> int:
    """Returns half of the CPUs, but at least one."""
    return max(1, cluster.cpus // 2)


def encoders_at_once(cluster: Resources) -> int | None:
    """Returns how many tasks may encode for a pool at once; None, for as many as have room, if nodes may join."""
    return None if cluster.grows else half_of(cluster)
