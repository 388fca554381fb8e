"""The share of a pass in which its replicas compute."""

from dataclasses import dataclass, field


@dataclass
class Utilization:
    """The time that the replicas of a pass compute, by the driver's clock.

    Replicas report durations only, since the clocks of nodes differ. A replica counts from the beginning of its first
    shard, after loading, to the end of the pass.
    """

    _began: dict[str, float] = field(default_factory=dict)
    _computed: float = 0.0

    def add(self, replica: str, seconds: float, now: float) -> None:
        """Counts a shard that `replica` computed in `seconds` and that arrived at `now`."""
        self._began.setdefault(replica, now - seconds)
        self._computed += seconds

    def idle_share(self, now: float) -> float:
        """Returns the share of their time, 0 to 1, in which replicas did not compute, if the pass ends at `now`."""
        held = sum(now - began for began in self._began.values())
        return max(0.0, 1 - self._computed / held) if held else 0.0
