"""The only room that knows Ray Data: files are read, and shards are encoded and scored, in streams over the cluster.

A pass is (member, shards that it has not scored). Its shard numbers flow through CPU tasks that encode and a pool of
actors that score; an actor writes each shard's scores whole, so that the run directory tells what is left to do. The
conversations themselves never pass through the driver.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from pydantic import TypeAdapter
from ray.exceptions import RayError

from lmsys_ray import CLASSES
from lmsys_ray.cluster import Resources
from lmsys_ray.config import LightGBMSettings, LlamaSettings, MemberSettings
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import RunError
from lmsys_ray.members import make_encoder, make_scorer
from lmsys_ray.members.base import CONVERSATIONS, Encoder
from lmsys_ray.readers import read_rows
from lmsys_ray.run import RunDirectory, write_table

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
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset.context.execution_options.preserve_order = True
    dataset = dataset.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=_ENCODE_CPUS)
    left = limit
    with _sentences():
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for number in pc.unique(block["file"]).to_pylist():
                rows = block.filter(pc.equal(block["file"], number)).drop_columns("file").slice(0, left)
                left = None if left is None else left - rows.num_rows
                if rows.num_rows:
                    yield files[number], rows
            if left == 0:
                return


def run_pass(
    run: RunDirectory, name: str, settings: LlamaSettings | LightGBMSettings, shards: Sequence[int], cluster: Resources
) -> Iterator[ScoredShard]:
    """Scores `shards` with the member `name` and yields each as it is written, in no particular order.

    Raises `RunError` with the sentence of a member that cannot be loaded or cannot score.
    """
    if not shards:
        return
    dataset = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=min(len(shards), _MOST_BLOCKS)
    )
    arguments = {"run": str(run.path), "member": name, "settings": settings.model_dump_json()}
    dataset = dataset.map_batches(
        _encode, fn_kwargs=arguments, batch_size=1, batch_format="pyarrow", num_cpus=_ENCODE_CPUS
    )
    dataset = dataset.map_batches(
        _ShardScorer, fn_constructor_kwargs=arguments, batch_size=1, batch_format="pyarrow", **_pool(settings, cluster)
    )
    with _sentences():
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
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
        raise RunError(f"replicas = {size} need {size * settings.gpus_per_replica:g} GPUs, the cluster has {cluster.gpus}")
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size)
    return {"compute": pool, "num_gpus": settings.gpus_per_replica, "num_cpus": 0}


def _encode(batch: pa.Table, run: str, member: str, settings: str) -> pa.Table:
    """Reads and encodes one shard. It travels as one cell, so that no splitting of blocks can cut it in two."""
    shard = batch["shard"][0].as_py()
    encoder = _encoder(settings)
    conversations = scorable(pq.read_table(RunDirectory(run).shard(shard)))
    encoded = encoder.encode(conversations) if encoder else conversations
    return pa.table({"shard": [shard], "encoded": pa.array([_to_bytes(encoded)], pa.large_binary())})


@lru_cache(maxsize=4)
def _encoder(settings: str) -> Encoder | None:
    """A worker process keeps its tokenizer from shard to shard."""
    return make_encoder(_MEMBER.validate_json(settings))


class _ShardScorer:
    """An actor of the pool: one replica of the member's model."""

    def __init__(self, run: str, member: str, settings: str) -> None:
        self._run = RunDirectory(run)
        self._member = member
        self._failure: RunError | None = None
        try:
            self._scorer = make_scorer(_MEMBER.validate_json(settings))
        except RunError as error:
            # Raised by the first call instead: an actor that dies in its constructor would be started again and again.
            self._failure = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._failure:
            raise self._failure
        shard = batch["shard"][0].as_py()
        encoded = _from_bytes(batch["encoded"][0])
        probabilities = self._scorer.score(encoded)
        table = score_table(encoded, probabilities)
        write_table(table, self._run.score(self._member, shard))
        tokens = pc.sum(table["tokens"]).as_py() or 0 if "tokens" in table.column_names else 0
        return pa.table({"shard": [shard], "rows": [table.num_rows], "tokens": [tokens]})


def scorable(shard: pa.Table) -> pa.Table:
    """Returns the rows of a shard that members score, with the columns of `CONVERSATIONS`."""
    return shard.filter(pc.invert(shard["rejected"])).select(CONVERSATIONS.names)


def score_table(encoded: pa.Table, probabilities: np.ndarray) -> pa.Table:
    """Returns a member's score shard: row, a, b, tie (float32), and tokens where the member counts them."""
    columns = {"row": encoded["row"], **{c: probabilities[:, i].astype(np.float32) for i, c in enumerate(CLASSES)}}
    if "tokens" in encoded.column_names:
        columns["tokens"] = encoded["tokens"]
    return pa.table(columns)


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
