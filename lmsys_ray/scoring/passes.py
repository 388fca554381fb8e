"""The passes of a run, in which each member scores the shards that it has not scored yet."""

import threading
import time
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
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
from lmsys_ray.scoring.run_pass import run_pass
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.scoring.stage_progress import StageProgress
from lmsys_ray.scoring.start import Start


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
        """Runs the passes of some members one after another."""
        for name in members:
            with self.start.timed(f"pass {name}"):
                self.nodes.retry_excluding(partial(self._run, name))
            if self.stop.is_set():
                return

    def _run(self, name: str) -> None:
        start, settings = self.start, self.start.settings
        missing = start.run.missing(name, start.report.ingested.shards)
        cluster = present_resources(self.cluster.grows, self.nodes.ids)
        pool = kind_of(settings.members[name]).placement(settings.members[name], len(missing), cluster)
        pool = replace(pool, excluded=self.nodes.ids)
        sizes = start.run.shard_bytes()
        work = sum(sizes[shard] for shard in missing)
        progress = start.display.begin(name, self._rows(missing), work, min(pool.size, len(missing)))
        shards, originals = start.run.largest_first(missing), start.originals.members[name]
        with self._node_watch(name, pool):
            for shard in run_pass(start.run, settings, name, shards, pool, self.watchdog, self.nodes.shared, originals):
                start.lock.check()
                self.watchdog.progress()
                progress.utilization.add(shard.replica, shard.seconds, time.monotonic())
                start.report.idle[name] = round(progress.utilization.idle_share(time.monotonic()), 4)
                progress.add(shard.rows, shard.tokens, sizes[shard.shard])
                self._count(shard, progress)
                self._check_failed(shard)
                if self.stop.is_set():
                    return
        start.display.finish(progress)

    def _node_watch(self, name: str, pool: Pool) -> NodeWatch:
        resource: Literal["CPU", "GPU"] = "GPU" if pool.gpus else "CPU"
        return NodeWatch(name, resource, pool.gpus or pool.cpus, self.start.display.say)

    def _rows(self, shards: list[int]) -> int:
        """Estimates the scorable rows of some shards without opening them."""
        ingested = self.start.report.ingested
        return (ingested.lines - ingested.unscored) * len(shards) // max(ingested.shards, 1)

    def _count(self, shard: ScoredShard, progress: StageProgress) -> None:
        report = self.start.report
        report.seconds.setdefault("until a first shard", round(time.perf_counter() - self.start.began, 3))
        report.include(shard, time.perf_counter() - self.start.began)
        self.start.display.show(progress)
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
