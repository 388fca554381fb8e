"""The passes of a run, in which each member scores the shards that it has not scored yet."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Literal

from lmsys_ray.cluster.connect import present_resources
from lmsys_ray.cluster.excluded_nodes import ExcludedNodes, find_excluded
from lmsys_ray.cluster.node_watch import NodeWatch
from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.ensemble.rejects import refusal, too_many
from lmsys_ray.errors import DamagedError
from lmsys_ray.fault_tolerance.watchdog import Watchdog
from lmsys_ray.members.protocol import LANES
from lmsys_ray.members.registry import kind_of
from lmsys_ray.scoring.fingerprint import named_files
from lmsys_ray.scoring.run_pass import Pass, run_passes
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.scoring.stage_progress import StageProgress
from lmsys_ray.scoring.start import Start

_MANY_SHARDS = 1 << 20
"""So many that the size of a pool does not depend on them."""


def score_members(start: Start, missing: dict[str, list[int]], cluster: Resources, watchdog: Watchdog) -> None:
    """Runs the passes with shards missing: one after another within a lane, the two lanes side by side.

    The first error ends the job, and the other lane stops at its next shard.
    """
    lane_of = {name: kind_of(start.settings.members[name]).lane for name in missing}
    needed = ["CPU", "GPU"] if "device" in lane_of.values() else ["CPU"]
    named = named_files(start.settings, missing)
    nodes = find_excluded(start.run, start.lock.token, named, needed, cluster.grows, start.say_once)
    passes = _Passes(start, cluster, watchdog, nodes)
    lanes = [[name for name in missing if lane_of[name] == lane and missing[name]] for lane in LANES]
    with start.timed("passes"):
        pool = ThreadPoolExecutor(len(lanes))
        work = [pool.submit(passes.run_lane, lane) for lane in lanes if lane]
        try:
            for future in wait(work, return_when=FIRST_EXCEPTION).done:
                future.result()
        except DamagedError:
            passes.stop.set()
            wait(work)  # The job looks for missing shards again, so that no pass may still be writing.
            raise
        finally:
            passes.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Passes:
    """What the passes of a start share."""

    start: Start
    cluster: Resources
    watchdog: Watchdog
    nodes: ExcludedNodes
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by the end of the passes, so that a lane that still runs stops."""
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    """Of each member, the reasons of the rows that it could not score in this start."""

    def run_lane(self, members: list[str]) -> None:
        """Runs the passes of some members one after another; those of like workers share them."""
        for names in [[*group] for _, group in groupby(members, self._workers)]:
            with self.start.display.during(f"pass {', '.join(names)}"):
                self.nodes.retry_excluding(partial(self._run, names))
            if self.stop.is_set():
                return

    def _workers(self, name: str) -> tuple[object, ...]:
        """Returns what neighbours share whose passes one pool can do: their kind and pool, without a device."""
        member = self.start.settings.members[name]
        kind = kind_of(member)
        return (member.kind, kind.placement(member, _MANY_SHARDS, self.cluster)) if kind.lane == "cpu" else (name,)

    def _run(self, names: Sequence[str]) -> None:
        start = self.start
        missing = {name: start.run.missing(name, start.report.ingested.shards) for name in names}
        due = [
            Pass(name, start.run.largest_first(shards), start.originals.members[name])
            for name, shards in missing.items()
            if shards
        ]
        if not due:
            return
        pool = self._pool(due)
        shown = _Shown(start, due, pool, self._rows)
        with self._node_watch(", ".join(names), pool):
            for shard in run_passes(start.run, start.settings, due, pool, self.watchdog, self.nodes.shared):
                start.lock.check()
                self.watchdog.progress()
                self._count(shard)
                shown.add(shard)
                self._check_failed(shard)
                if self.stop.is_set():
                    return

    def _pool(self, due: Sequence[Pass]) -> Pool:
        member = self.start.settings.members[due[0].name]
        cluster = present_resources(self.cluster.grows, self.nodes.ids)
        pool = kind_of(member).placement(member, sum(len(each.shards) for each in due), cluster)
        return replace(pool, excluded=self.nodes.ids)

    def _node_watch(self, name: str, pool: Pool) -> NodeWatch:
        resource: Literal["CPU", "GPU"] = "GPU" if pool.gpus else "CPU"
        return NodeWatch(name, resource, pool.gpus or pool.cpus, self.start.display.say)

    def _rows(self, shards: Sequence[int]) -> int:
        """Estimates the scorable rows of some shards without opening them."""
        ingested, sizes = self.start.report.ingested, self.start.shard_sizes
        rows = sum(sizes.rows(shard, ingested.lines) for shard in shards)
        return rows * (ingested.lines - ingested.unscored) // max(ingested.lines, 1)

    def _count(self, shard: ScoredShard) -> None:
        report, seconds = self.start.report, time.perf_counter() - self.start.began
        report.seconds.setdefault("until a first shard", round(seconds, 3))
        report.include(shard, seconds)
        for note in shard.notes:
            self.start.say_once(f"members.{shard.member}: {note}")

    def _check_failed(self, shard: ScoredShard) -> None:
        """Raises `RunError` once a member has failed at more rows than the settings allow."""
        failed = self.failed.setdefault(shard.member, Counter())
        failed.update(shard.reasons)
        rows, share = self.start.report.ingested.rows, self.start.settings.max_error_rate
        if shard.reasons and too_many(failed.total(), rows, share):
            place = self.start.run.score(shard.member, shard.shard).parent
            raise refusal(failed.total(), rows, share, failed, str(place))


class _Shown:
    """The progress of passes that share a pool, and the seconds of each.

    A pass begins when the one before it, in the order in which they are dispatched, has no shard left to begin.
    """

    def __init__(self, start: Start, due: Sequence[Pass], pool: Pool, rows: Callable[[Sequence[int]], int]) -> None:
        self._start = start
        self._due = {each.name: each for each in due}
        self._pool = pool
        self._rows = rows
        self._sizes = start.run.shard_bytes()
        self._progress: dict[str, StageProgress] = {}
        self._began: dict[str, float] = {}
        self._left = {each.name: len(each.shards) for each in due}
        self._begin(due[0].name, time.monotonic())

    def _begin(self, name: str, began: float) -> None:
        shards = self._due[name].shards
        work = sum(self._sizes[shard] for shard in shards)
        replicas = min(self._pool.size, len(shards))
        self._progress[name] = self._start.display.begin(name, self._rows(shards), work, replicas)
        self._began[name] = began

    def add(self, shard: ScoredShard) -> None:
        """Counts a shard that has just been written."""
        name, now = shard.member, time.monotonic()
        if name not in self._progress:
            self._begin(name, now - shard.seconds)
        progress = self._progress[name]
        progress.utilization.add(shard.replica, shard.seconds, now)
        progress.add(shard.rows, shard.tokens, self._sizes[shard.shard])
        self._start.display.show(progress)
        self._start.report.idle[name] = round(progress.utilization.idle_share(now), 4)
        self._start.report.seconds[f"pass {name}"] = round(now - self._began[name], 3)
        self._left[name] -= 1
        if not self._left[name]:
            self._start.display.finish(progress)
