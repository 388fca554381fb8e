"""The results of one start of a run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmsys_ray.engine.usage import Usage
from lmsys_ray.ensemble.position_bias import PositionBias
from lmsys_ray.run_directory.manifest import Ingested

if TYPE_CHECKING:
    from lmsys_ray.scoring.scored_shard import ScoredShard

MOST_REPLICAS = 64
"""Replicas of a member, the first, of which a start records what each did."""

MOST_DEATHS = 64
"""Deaths of processes of a member, the first, of which a start records when they were noticed."""


@dataclass
class Report:
    """The results of one start of a run; the counts of members are by their names."""

    ingested: Ingested = field(default_factory=Ingested)
    rows_ingested: int = 0
    """Rows of the input, if this start completed an ingest."""
    scored: dict[str, int] = field(default_factory=dict)
    """Rows that each member scored in this start."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens that each language model scored in this start, without padding."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """What the replicas of each language model computed in this start: padding, and how full micro-batches were."""
    unscorable: list[dict[str, Any]] = field(default_factory=list)
    """Rows that ingest accepted and a member could not score, as in the list of rejects."""
    nodes: dict[str, Counter[str]] = field(default_factory=dict)
    """For each member, how many shards each node scored in this start."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts about each member's model as it was loaded."""
    links: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The link of each member that scores each response by itself: its name, scale and tie."""
    biases: dict[str, PositionBias] = field(default_factory=dict)
    """How much the scores of members that scored both orders depend on the order."""
    idle: dict[str, float] = field(default_factory=dict)
    """The share of their time, 0 to 1, in which each member's replicas did not compute."""
    written: list[str] = field(default_factory=list)
    """A line about each file that the join wrote."""
    replicas: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """For each member and actor: its `node`, `shards`, `rows`, `computed` seconds, and when its first shard `began` and
    its last `ended`, in seconds of the start."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Processes of each member that died in this start, or were killed because they hung."""
    died_at: dict[str, list[float]] = field(default_factory=dict)
    """When that was noticed, in seconds of the start: the first `MOST_DEATHS` of each member."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each stage, and of each pass; passes run side by side."""

    @property
    def rejects(self) -> int:
        """Input rows without a score of their own: rejected by ingest, or not scored by a member."""
        return self.ingested.rejects + len({row["id"] for row in self.unscorable})

    @property
    def clean(self) -> bool:
        """Whether every row has a score of its own, and none a warning."""
        return not self.rejects and not self.ingested.warnings

    def include(self, shard: "ScoredShard", now: float = 0.0) -> None:
        """Adds a shard that a member has scored, `now` seconds after the beginning of the start."""
        name = shard.member
        self.nodes.setdefault(name, Counter())[shard.node] += 1
        self.scored[name] = self.scored.get(name, 0) + shard.rows
        if shard.tokens:
            self.usage.setdefault(name, Usage()).include(shard.usage)
            self.tokens[name] = self.tokens.get(name, 0) + shard.tokens
        if shard.facts:
            self.models[name] = shard.facts
        began = round(max(0.0, now - shard.seconds), 3)
        fresh = {"node": shard.node, "shards": 0, "rows": 0, "computed": 0.0, "began": began}
        replica = self.replicas.setdefault(name, {}).setdefault(shard.replica, fresh)
        replica["shards"] += 1
        replica["rows"] += shard.rows
        replica["computed"] = round(replica["computed"] + shard.seconds, 3)
        replica["ended"] = round(now, 3)

    def note_death(self, member: str, now: float) -> None:
        """Counts a process of `member` whose death was noticed `now` seconds after the beginning of the start."""
        self.deaths[member] += 1
        times = self.died_at.setdefault(member, [])
        if len(times) < MOST_DEATHS:
            times.append(round(now, 3))

    def results(self) -> dict[str, Any]:
        """Returns what the manifest records of a start, as JSON."""
        return {
            "seconds": dict(self.seconds),
            "ingested": self.rows_ingested,
            "scored": dict(self.scored),
            "nodes": {name: dict(counts) for name, counts in self.nodes.items()},
            "replicas": {name: list(found.values())[:MOST_REPLICAS] for name, found in self.replicas.items()},
            "deaths": dict(self.deaths),
            "died_at": {name: list(times) for name, times in self.died_at.items()},
        }
