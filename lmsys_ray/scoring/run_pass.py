"""One pass, in which a member scores shards on the cluster.

Shard numbers flow through CPU tasks that encode and a pool of actors that score (`shard_worker`). The conversations
themselves never pass through the driver.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from lmsys_ray.cluster.dispatch import dispatch
from lmsys_ray.cluster.idle_priority import lower_helpers_priority
from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.shared_files import SharedFiles
from lmsys_ray.fault_tolerance.watchdog import Watchdog
from lmsys_ray.members.registry import package_of
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.shard_worker import PassSpec, ShardScorer, encode_shard
from lmsys_ray.storage.unchanged import Original


def run_pass(
    run: RunDirectory,
    settings: Settings,
    name: str,
    shards: Sequence[int],
    pool: Pool,
    watchdog: Watchdog,
    shared: SharedFiles,
    originals: tuple[Original, ...] = (),
) -> Iterator[ScoredShard]:
    """Scores `shards` with the member `name` and yields each once it is written, in any order.

    Ray restarts a process that died and gives it the same shard. `watchdog` counts these deaths, and a row at which
    processes keep dying is left out. Raises `RunError` for a member that cannot be loaded or cannot score,
    `ReplacedError` where a file is not one of `originals`, `DamagedError` for a shard that must be made again, and
    `ExcludedNodeError` where a node does not see `shared`.
    """
    if not shards:
        return
    member = settings.members[name]
    spec = PassSpec(
        run=str(run.path),
        name=name,
        member=member.model_dump_json(),
        package=package_of(member.kind),
        cells=settings.cells,
        ledger=watchdog.ledger,
        max_deaths=settings.max_deaths,
        binding=run.binding,
        originals=originals,
        shared=shared,
    )
    items = [{"shard": shard} for shard in shards]
    encode = partial(encode_shard, spec=spec)
    for number, row in enumerate(dispatch(items, encode, ShardScorer, {"spec": spec}, pool)):
        if number == 0 and pool.whole_machine:
            lower_helpers_priority(watchdog.ledger)  # Not earlier, since they also start the replica.
        yield ScoredShard.of_row(row)
