"""Passes on the cluster: members score shards, one member after another, by the same actors.

Pairs of member and shard flow through CPU tasks that encode and a pool of actors that score (`member_worker`). The
conversations themselves never pass through the driver. Measurements: docs/lab/many_members.md
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lmsys_ray.cluster.dispatch import dispatch
from lmsys_ray.cluster.idle_priority import lower_helpers_priority
from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.shared_files import SharedFiles
from lmsys_ray.fault_tolerance.watchdog import Watchdog
from lmsys_ray.members.registry import package_of
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.member_worker import ShardScorers, encode_item
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.shard_worker import PassSpec
from lmsys_ray.storage.unchanged import Original


@dataclass(frozen=True)
class Pass:
    """The shards that a member is to score, in their order."""

    name: str
    shards: Sequence[int]
    originals: tuple[Original, ...] = ()
    """The files of its model that the manifest names."""


def run_passes(
    run: RunDirectory,
    settings: Settings,
    passes: Sequence[Pass],
    pool: Pool,
    watchdog: Watchdog,
    shared: SharedFiles,
) -> Iterator[ScoredShard]:
    """Runs `passes` one after another in one pool, and yields each shard once it is written, in any order.

    Ray restarts a process that died and gives it the same shard. `watchdog` counts these deaths, and a row at which
    processes keep dying is left out. Raises `RunError` for a member that cannot be loaded or cannot score,
    `ReplacedError` where a file is not one of the originals, `DamagedError` for a shard that must be made again, and
    `ExcludedNodeError` where a node does not see `shared`.
    """
    specs = {each.name: _spec(run, settings, each, watchdog, shared) for each in passes}
    items = [{"member": each.name, "shard": shard} for each in passes for shard in each.shards]
    if not items:
        return
    encode = partial(encode_item, specs=specs)
    for number, row in enumerate(dispatch(items, encode, ShardScorers, {"specs": specs}, pool)):
        if number == 0 and pool.whole_machine:
            lower_helpers_priority(watchdog.ledger)  # Not earlier, since they also start the replica.
        yield ScoredShard.of_row(row)


def _spec(run: RunDirectory, settings: Settings, each: Pass, watchdog: Watchdog, shared: SharedFiles) -> PassSpec:
    member = settings.members[each.name]
    return PassSpec(
        run=str(run.path),
        name=each.name,
        member=member.model_dump_json(),
        package=package_of(member.kind),
        cells=settings.cells,
        ledger=watchdog.ledger,
        max_deaths=settings.max_deaths,
        binding=run.binding,
        originals=each.originals,
        shared=shared,
    )
