"""How much of the time that a pass holds its replicas they compute."""

from dataclasses import dataclass, field


@dataclass
class Occupancy:
    """The replicas of one pass, as the driver's clock sees them.

    Only durations come from the replicas, since the clocks of nodes differ. A replica is held from the moment it began
    its first shard, since what comes before is loading, to the end of the pass.
    """

    _began: dict[str, float] = field(default_factory=dict)
    _computed: float = 0.0

    def add(self, replica: str, seconds: float, now: float) -> None:
        """Counts a shard that `replica` computed for `seconds` and whose end was seen at `now`."""
        self._began.setdefault(replica, now - seconds)
        self._computed += seconds

    def idle_share(self, now: float) -> float:
        """Returns the share of the held time in which replicas did not compute, the pass ending at `now`; 0 to 1."""
        held = sum(now - began for began in self._began.values())
        return max(0.0, 1 - self._computed / held) if held else 0.0
