"""The only room that knows Ray Data: files are read, and shards are encoded and scored, in streams over the cluster.

A pass is (member, shards that it has not scored). Its shard numbers flow through CPU tasks that encode and a pool of
actors that score; an actor writes each shard's scores whole, so that the run directory tells what is left to do. The
conversations themselves never pass through the driver.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from pydantic import TypeAdapter
from ray.exceptions import RayError

from lmsys_ray.cluster import Resources
from lmsys_ray.config import LightGBMSettings, LlamaSettings, MemberSettings, Settings
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import RunError
from lmsys_ray.members import make_encoder, make_scorer
from lmsys_ray.readers import read_rows
from lmsys_ray.run import RunDirectory, write_table
from lmsys_ray.scores import both_orders, scorable, score_table

_MOST_BLOCKS = 2000
_ENCODE_CPUS = 0.25
_MEMBER: TypeAdapter[LlamaSettings | LightGBMSettings] = TypeAdapter(MemberSettings)


@dataclass(frozen=True)
class ScoredShard:
    """One shard that a pass has written."""

    member: str
    shard: int
    rows: int
    """Rows scored; those that ingest rejected are none of them."""
    tokens: int


def read_files(files: Sequence[str], form: CellForm, limit: int | None) -> Iterator[tuple[str, pa.Table]]:
    """Yields (file, rows as `lmsys_ray.readers.READ`) of all files in order, the reading done by tasks on the cluster.

    Ray Data bounds what lies between the tasks and the reader of this iterator, so that memory stays flat.
    """

    def read(batch: pa.Table) -> Iterator[pa.Table]:
        for number, path in zip(batch["number"].to_pylist(), batch["path"].to_pylist(), strict=True):
            for rows in read_rows(path, form, limit=limit):
                yield rows.append_column("file", pa.repeat(pa.scalar(number), rows.num_rows))

    items = [{"number": number, "path": path} for number, path in enumerate(files)]
    dataset: ray.data.Dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset.context.execution_options.preserve_order = True
    dataset = dataset.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=_ENCODE_CPUS)
    left = limit
    with _sentences():
        for block in cast(Iterator[pa.Table], dataset.iter_batches(batch_size=None, batch_format="pyarrow")):
            for number in pc.unique(block["file"]).to_pylist():
                rows = block.filter(pc.equal(block["file"], number)).drop_columns("file").slice(0, left)
                left = None if left is None else left - rows.num_rows
                if rows.num_rows:
                    yield files[number], rows
            if left == 0:
                return


def run_pass(
    run: RunDirectory, settings: Settings, name: str, shards: Sequence[int], cluster: Resources
) -> Iterator[ScoredShard]:
    """Scores `shards` with the member `name` and yields each as it is written, in no particular order.

    Raises `RunError` with the sentence of a member that cannot be loaded or cannot score.
    """
    if not shards:
        return
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=min(len(shards), _MOST_BLOCKS)
    )
    member = settings.members[name]
    arguments: dict[str, Any] = {"run": str(run.path), "name": name, "member": member.model_dump_json()}
    one_shard: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    encoding = partial(_encode, **arguments, cells=settings.cells)
    dataset = dataset.map_batches(encoding, num_cpus=_ENCODE_CPUS, **one_shard)
    dataset = dataset.map_batches(_ShardScorer, fn_constructor_kwargs=arguments, **one_shard, **_pool(member, cluster))
    with _sentences():
        for row in dataset.iter_rows():
            yield ScoredShard(name, **row)


def _pool(settings: LlamaSettings | LightGBMSettings, cluster: Resources) -> dict:
    """Returns the actors' pool and what each reserves.

    GPU actors reserve no CPU, and CPU actors half of one at most, so that reading and encoding always find room.
    """
    if isinstance(settings, LightGBMSettings):
        size = max(1, cluster.cpus // 2) if settings.workers == "auto" else settings.workers
        return {"compute": ray.data.ActorPoolStrategy(size=size), "num_cpus": 0.5}
    if not cluster.gpus:
        size = 1 if settings.replicas == "auto" else settings.replicas
        return {"compute": ray.data.ActorPoolStrategy(size=size), "num_cpus": 0.5}
    most = max(1, int(cluster.gpus // settings.gpus_per_replica))
    size = most if settings.replicas == "auto" else settings.replicas
    if size > most:
        raise RunError(
            f"replicas = {size} need {size * settings.gpus_per_replica:g} GPUs, the cluster has {cluster.gpus}"
        )
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)
    return {"compute": pool, "num_gpus": settings.gpus_per_replica, "num_cpus": 0}


def _encode(batch: pa.Table, run: str, name: str, member: str, cells: CellForm) -> pa.Table:
    """Reads and encodes one shard. It travels as one cell, so that no splitting of blocks can cut it in two."""
    shard = batch["shard"][0].as_py()
    conversations = scorable(pq.read_table(RunDirectory(run).shard(shard)))
    encoded = _encoder(member, cells)(conversations)
    return pa.table({"shard": [shard], "encoded": pa.array([_to_bytes(encoded)], pa.large_binary())})


@lru_cache(maxsize=4)
def _encoder(member: str, cells: CellForm) -> Callable[[pa.Table], pa.Table]:
    """A worker process keeps its tokenizer from shard to shard."""
    settings = _MEMBER.validate_json(member)
    encode = make_encoder(settings, cells)
    return (lambda conversations: encode(both_orders(conversations))) if settings.swap else encode


class _ShardScorer:
    """An actor of the pool: one replica of the member's model."""

    def __init__(self, run: str, name: str, member: str) -> None:
        self._run = RunDirectory(run)
        self._name = name
        self._failure: RunError | None = None
        settings = _MEMBER.validate_json(member)
        self._swap = settings.swap
        try:
            self._scorer = make_scorer(settings)
        except RunError as error:
            # Raised by the first call instead: an actor that dies in its constructor would be started again and again.
            self._failure = type(error)(f"members.{name}: {error}")

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._failure:
            raise self._failure
        shard = batch["shard"][0].as_py()
        encoded = _from_bytes(batch["encoded"][0])
        table = score_table(encoded, self._scorer.score(encoded), self._swap)
        write_table(table, self._run.score(self._name, shard))
        tokens = pc.sum(table["tokens"]).as_py() or 0 if "tokens" in table.column_names else 0
        return pa.table({"shard": [shard], "rows": [table.num_rows], "tokens": [tokens]})


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
            if isinstance(cause, RunError):
                raise type(cause)(str(cause)) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
