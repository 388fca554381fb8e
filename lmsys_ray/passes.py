"""The only room that knows Ray Data: files are read, and shards are encoded and scored, in streams over the cluster.

A pass is (member, shards that it has not scored). Its shard numbers flow through CPU tasks that encode and a pool of
actors that score; an actor writes each shard's scores whole, so that the run directory tells what is left to do. The
conversations themselves never pass through the driver.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from pydantic import TypeAdapter
from ray.exceptions import RayError, RayTaskError

from lmsys_ray.config import LightGBMSettings, LlamaSettings, MemberSettings, Settings
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.isolation import compute_rows
from lmsys_ray.members import make_encoder, make_scorer
from lmsys_ray.members.usage import Usage
from lmsys_ray.pools import Pool
from lmsys_ray.readers import BEGINNING, Start, read_rows
from lmsys_ray.run import RunDirectory, read_table, write_table
from lmsys_ray.scores import both_orders, merged, rows_between, scorable, score_table, with_failed
from lmsys_ray.watchdog import Reporter, Watchdog

_MOST_BLOCKS = 2000
_ENCODE_CPUS = 0.25
_READ_BLOCK_BYTES = 16 << 20
_MEMBER: TypeAdapter[LlamaSettings | LightGBMSettings] = TypeAdapter(MemberSettings)


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
        dataset = dataset.map_batches(reading, batch_size=1, batch_format="pyarrow", num_cpus=_ENCODE_CPUS)
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
    work = _Work(str(run.path), name, member.model_dump_json(), watchdog.ledger, settings.max_deaths)
    items = [{"shard": shard} for shard in shards]
    encoding = partial(_encode, work=work, cells=settings.cells)
    for row in dispatch(items, encoding, _ShardScorer, {"work": work}, pool):
        yield ScoredShard(name, **row)


def dispatch(
    items: Sequence[dict[str, Any]],
    encode: Callable[[pa.Table], pa.Table],
    scorer: type,
    arguments: dict[str, Any],
    pool: Pool,
) -> Iterator[dict[str, Any]]:
    """Yields what becomes of `items`, in no particular order: each is encoded by a CPU task, then goes to an actor.

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
    tasks = ray.data.TaskPoolStrategy(size=pool.encoders)
    dataset = dataset.map_batches(encode, num_cpus=_ENCODE_CPUS, compute=tasks, **one_item)
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


@dataclass(frozen=True)
class _Work:
    """What the workers of a pass need to know."""

    run: str
    name: str
    member: str
    """The member's settings as JSON."""
    ledger: Any
    max_deaths: int

    @property
    def settings(self) -> LlamaSettings | LightGBMSettings:
        return _MEMBER.validate_json(self.member)

    def reporter(self, step: str) -> Reporter:
        return Reporter(self.ledger, self.name, step, self.max_deaths)


def _encode(batch: pa.Table, work: _Work, cells: CellForm) -> pa.Table:
    """Reads and encodes one shard. It travels as one cell, so that no splitting of blocks can cut it in two."""
    shard = batch["shard"][0].as_py()
    conversations = scorable(read_table(RunDirectory(work.run).shard(shard)))
    encode, orders = _encoder(work.member, cells)
    parts, failed = compute_rows(
        conversations.num_rows,
        lambda start, stop: encode(conversations.slice(start, stop - start)),
        work.reporter("encode").rows(shard, conversations.num_rows),
    )
    encoded = merged(parts or [encode(conversations.slice(0, 0))], orders)
    cell = pa.array([_to_bytes(encoded)], pa.large_binary())
    return pa.table({"shard": [shard], "encoded": cell, "failed": [json.dumps(_by_row(conversations, failed))]})


def _by_row(rows: pa.Table, failed: Mapping[int, str]) -> dict[int, str]:
    """Returns the reasons of rows that failed by their number in the run instead of their place in `rows`."""
    return {rows["row"][place].as_py(): why for place, why in failed.items()}


@lru_cache(maxsize=4)
def _encoder(member: str, cells: CellForm) -> tuple[Callable[[pa.Table], pa.Table], int]:
    """A worker process keeps its tokenizer from shard to shard. The number is that of the orders of A and B."""
    settings = _MEMBER.validate_json(member)
    encode = make_encoder(settings, cells)
    return ((lambda rows: encode(both_orders(rows))), 2) if settings.swap else (encode, 1)


class _ShardScorer:
    """An actor of the pool: one replica of the member's model.

    Shards are computed in turns. While one is written, and its successor on the way, the next is computed.
    """

    def __init__(self, work: _Work) -> None:
        self._run = RunDirectory(work.run)
        self._name = work.name
        self._reporter = work.reporter("score")
        self._failure: RunError | None = None
        self._turn = threading.Lock()
        settings = work.settings
        self._swap = settings.swap
        if not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # GPUs that it has not reserved are another actor's.
        try:
            with work.reporter("load").loading():
                self._scorer = make_scorer(settings)
        except RunError as error:
            # Raised by the first call instead: an actor that dies in its constructor would be started again and again.
            self._failure = type(error)(f"members.{work.name}: {error}")

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._failure:
            raise self._failure
        shard = batch["shard"][0].as_py()
        path = self._run.score(self._name, shard)
        seconds, usage = 0.0, Usage()
        try:
            scores = read_table(path)  # There where an actor died between writing it and saying so.
        except DamagedError:
            encode_failures = {int(row): why for row, why in json.loads(batch["failed"][0].as_py()).items()}
            encoded = _from_bytes(batch["encoded"][0])
            with self._turn:
                began = time.perf_counter()
                self._scorer.usage = usage
                scores = self._score(shard, encoded, encode_failures)
                seconds = time.perf_counter() - began
            write_table(scores, path)
        reasons = scores["reason"].drop_null().to_pylist() if "reason" in scores.column_names else []
        tokens = pc.sum(scores["tokens"]).as_py() or 0 if "tokens" in scores.column_names else 0
        here = ray.get_runtime_context()
        told = {"shard": [shard], "rows": [scores.num_rows - len(reasons)], "tokens": [tokens], "seconds": [seconds]}
        told["usage"] = [asdict(usage)]
        told |= {"node": [here.get_node_id()], "replica": [here.get_actor_id()]}
        return pa.table({**told, "reasons": pa.array([reasons], pa.list_(pa.string()))})

    def _score(self, shard: int, encoded: pa.Table, encode_failures: dict[int, str]) -> pa.Table:
        orders = 2 if self._swap else 1

        def compute(start: int, stop: int) -> pa.Table:
            rows = rows_between(encoded, start, stop, orders)
            return score_table(rows, self._scorer.score(rows), self._swap)

        count = encoded.num_rows // orders
        parts, failed = compute_rows(count, compute, self._reporter.rows(shard, count))
        scores = pa.concat_tables(parts or [score_table(encoded.slice(0, 0), np.empty((0, 3)), self._swap)])
        return with_failed(scores, encode_failures | _by_row(encoded, failed))


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(cell: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


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
