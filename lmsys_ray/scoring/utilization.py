"""The share of a pass in which its replicas compute, and how long they still need."""

from dataclasses import dataclass, field

_SILENT_SECONDS = 60.0
"""A replica that finished nothing for so long, and for many times its longest shard, counts as gone."""

_MANY = 4


@dataclass
class Utilization:
    """The time that the replicas of a pass compute, by the driver's clock.

    Replicas report durations only, since the clocks of nodes differ. A replica counts from the beginning of its first
    shard, after loading, to the end of the pass.
    """

    _began: dict[str, float] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    _computed: float = 0.0
    _longest: float = 0.0

    def add(self, replica: str, seconds: float, now: float) -> None:
        """Counts a shard that `replica` computed in `seconds` and that arrived at `now`."""
        self._longest = max(self._longest, now - self._last.get(replica, now - seconds))
        self._began.setdefault(replica, now - seconds)
        self._last[replica] = now
        self._computed += seconds

    def idle_share(self, now: float) -> float:
        """Returns the share of their time, 0 to 1, in which replicas did not compute, if the pass ends at `now`."""
        held = sum(now - began for began in self._began.values())
        return max(0.0, 1 - self._computed / held) if held else 0.0

    @property
    def first(self) -> float | None:
        """When the first replica began to compute; None as long as all are loading."""
        return min(self._began.values(), default=None)

    def alive(self, now: float) -> int:
        """Returns how many replicas have finished a shard, and not so long ago that they must be gone."""
        patience = max(_SILENT_SECONDS, _MANY * self._longest)
        return sum(now - last <= patience for last in self._last.values())

    def seconds_left(self, done: float, left: float, now: float) -> float | None:
        """Returns the seconds that the work `left` takes, given the work `done` by now, in any unit; None: unknown.

        What replicas have begun since they last finished a shard counts as worked on.
        """
        held = sum(self._last[replica] - began for replica, began in self._began.items())
        alive = self.alive(now)
        if done <= 0 or held <= 0 or not alive:
            return None
        patience = max(_SILENT_SECONDS, _MANY * self._longest)
        begun = sum(now - last for last in self._last.values() if now - last <= patience)
        return max(0.0, left / done * held - begun) / alive
