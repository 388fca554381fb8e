"""The only room that knows Ray Data: files are read, and shards are encoded and scored, in streams over the cluster.

A pass is (member, shards that it has not scored). Its shard numbers flow through CPU tasks that encode and a pool of
actors that score (`lmsys_ray.shard_scorer`). The conversations themselves never pass through the driver.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray.data
from ray.exceptions import RayError, RayTaskError

from lmsys_ray.config import Settings
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import RunError
from lmsys_ray.pools import ENCODE_CPUS, Pool
from lmsys_ray.priorities import helpers_stand_back
from lmsys_ray.readers import BEGINNING, Start, read_rows
from lmsys_ray.run import RunDirectory
from lmsys_ray.shard_scorer import ShardScorer, Work, encode_shard
from lmsys_ray.watchdog import Watchdog

_MOST_BLOCKS = 2000
_READ_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class ScoredShard:
    """One shard that a pass has written."""

    member: str
    shard: int
    rows: int
    """Rows scored; those that ingest rejected are none of them."""
    tokens: int
    reasons: list[str]
    """Why rows could not be scored, one for each."""
    node: str
    """The node of the cluster whose actor wrote it."""
    replica: str
    """The actor, by Ray's id."""
    seconds: float
    """How long its model computed; reading, encoding and writing are not in it."""
    usage: dict[str, int]
    """The fields of a `Usage`: what its model was given in micro-batches."""
    notes: list[str]
    """What the user should know of how its model computes."""


@dataclass(frozen=True)
class FileRows:
    """The rows of files, in order, as (file, rows as `lmsys_ray.readers.READ`): each iteration reads them.

    Tasks on the cluster do the reading. Ray Data bounds what lies between them and the iteration, so that memory stays
    flat.
    """

    files: Sequence[str]
    form: CellForm
    limit: int | None
    start: Start = BEGINNING
    """Where the first file begins."""

    def beginning(self, file: str, start: Start, rows: int) -> "FileRows":
        """Returns the rows from `start` in `file` on, before which `rows` rows were read in all."""
        files = self.files[self.files.index(file) :]
        return FileRows(files, self.form, None if self.limit is None else self.limit - rows, start)

    def __iter__(self) -> Iterator[tuple[str, pa.Table]]:
        starts = [self.start, *[BEGINNING] * (len(self.files) - 1)]
        items = [
            {"number": number, "path": path, "at": start.at, "row": start.row}
            for number, (path, start) in enumerate(zip(self.files, starts, strict=True))
        ]
        dataset: ray.data.Dataset = ray.data.from_items(items, override_num_blocks=len(items))
        dataset.context.execution_options.preserve_order = True
        dataset.context.target_max_block_size = _READ_BLOCK_BYTES
        reading = partial(_read, form=self.form, limit=self.limit)
        dataset = dataset.map_batches(reading, batch_size=1, batch_format="pyarrow", num_cpus=ENCODE_CPUS)
        left = self.limit
        with _sentences():
            for block in cast(Iterator[pa.Table], dataset.iter_batches(batch_size=None, batch_format="pyarrow")):
                numbers = block["file"].to_numpy()
                ends = [*np.flatnonzero(np.diff(numbers)) + 1, block.num_rows]
                for first, end in zip([0, *ends[:-1]], ends, strict=True):
                    rows = block.slice(first, end - first).drop_columns("file").slice(0, left)
                    left = None if left is None else left - rows.num_rows
                    if rows.num_rows:
                        yield self.files[numbers[first]], rows
                if left == 0:
                    return


def read_files(files: Sequence[str], form: CellForm, limit: int | None) -> FileRows:
    """Returns the rows of all files in order, `limit` of them at most."""
    return FileRows(files, form, limit)


def _read(batch: pa.Table, form: CellForm, limit: int | None) -> Iterator[pa.Table]:
    for item in batch.to_pylist():
        for rows in read_rows(item["path"], form, limit=limit, start=Start(item["at"], item["row"])):
            yield rows.append_column("file", pa.repeat(pa.scalar(item["number"]), rows.num_rows))


def run_pass(
    run: RunDirectory, settings: Settings, name: str, shards: Sequence[int], pool: Pool, watchdog: Watchdog
) -> Iterator[ScoredShard]:
    """Scores `shards` with the member `name` and yields each as it is written, in no particular order.

    Ray starts a process again that died and gives it the same shard; `watchdog` counts such deaths, and a row at which
    processes keep dying is left out. Raises `RunError` with the sentence of a member that cannot be loaded or cannot
    score, `DamagedError` for a shard that has to be made again.
    """
    if not shards:
        return
    member = settings.members[name]
    work = Work(
        run=str(run.path),
        name=name,
        member=member.model_dump_json(),
        cells=settings.cells,
        ledger=watchdog.ledger,
        max_deaths=settings.max_deaths,
    )
    items = [{"shard": shard} for shard in shards]
    encode = partial(encode_shard, work=work)
    for number, row in enumerate(dispatch(items, encode, ShardScorer, {"work": work}, pool)):
        if number == 0 and pool.whole_machine:
            helpers_stand_back(watchdog.ledger)  # Not sooner, since start-up is theirs too.
        yield ScoredShard(name, **row)


def dispatch(
    items: Sequence[dict[str, Any]],
    encode: Callable[[pa.Table], pa.Table],
    scorer: type,
    arguments: dict[str, Any],
    pool: Pool,
) -> Iterator[dict[str, Any]]:
    """Yields what becomes of `items`, in no particular order: each is encoded by a CPU task, then goes to an actor.

    In a pool without encoders it goes to an actor as it is.

    The actors are `scorer(**arguments)`. An item goes to one that is free; it waits behind another only where there are
    so many that the end of the pass hardly feels it (`Pool.in_flight`). There an actor is called for both at once, each
    call in a thread of its own: computing in turns is for the actor to see to.

    All actors are asked for at once: as nodes join, those that found no room start there, and each ends when there is
    no item left for it. (A pool between two sizes grows by what Ray Data thinks is its share: beside a second dataset
    that is nothing on nodes with one GPU each.)
    """
    one_item: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    dataset: ray.data.Dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), _MOST_BLOCKS))
    dataset.context.target_max_block_size = 1  # What is encoded leaves item by item, however many share a task.
    if pool.encoders != 0:
        tasks = ray.data.TaskPoolStrategy(size=pool.encoders)
        dataset = dataset.map_batches(encode, num_cpus=ENCODE_CPUS, compute=tasks, **one_item)
    in_flight = pool.in_flight(len(items))
    actors = ray.data.ActorPoolStrategy(
        size=pool.size,
        max_tasks_in_flight_per_actor=in_flight,
        max_concurrent_calls_per_actor=in_flight,
        enable_true_multi_threading=True,
    )
    reserved: dict[str, Any] = {"compute": actors, "num_cpus": pool.cpus, "num_gpus": pool.gpus}
    dataset = dataset.map_batches(scorer, fn_constructor_kwargs=arguments, **one_item, **reserved)
    with _sentences():
        # Without prefetching, which would hold each result back until the next is there.
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from cast(pa.Table, block).to_pylist()


class _sentences:
    """Turns Ray's wrapping of an error that a worker raised for the user back into that error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, RayError):
            return
        cause: BaseException | None = error
        while cause is not None:
            # Ray raises classes that are both, whose text is a traceback, and adds advice of its own behind ours.
            if isinstance(cause, RunError) and not isinstance(cause, RayError):
                raise type(cause)(str(cause).partition("\n")[0]) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        if not isinstance(error, RayTaskError):  # Not the traceback of a fault in our own code.
            reason = str(error).strip().rpartition("\n")[2].strip()
            raise RunError(f"Ray gave up ({type(error).__name__}: {reason}); start the same command again") from error
