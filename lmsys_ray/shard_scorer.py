"""What the workers of a pass do with one shard: read and encode it, score it, and write its scores whole.

The run directory tells by these files what is left to do.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pydantic import TypeAdapter

from lmsys_ray.config import LightGBMSettings, LlamaSettings, MemberSettings
from lmsys_ray.conversations import CellForm
from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.isolation import compute_rows
from lmsys_ray.members import make_encoder, make_scorer
from lmsys_ray.members.usage import Usage
from lmsys_ray.run import RunDirectory, read_table, write_table
from lmsys_ray.scores import both_orders, merged, rows_between, scorable, score_table, with_failed
from lmsys_ray.watchdog import Reporter

_MEMBER: TypeAdapter[LlamaSettings | LightGBMSettings] = TypeAdapter(MemberSettings)


@dataclass(frozen=True)
class Work:
    """What the workers of a pass need to know."""

    run: str
    name: str
    member: str
    """The member's settings as JSON."""
    cells: CellForm
    ledger: Any
    max_deaths: int

    @property
    def settings(self) -> LlamaSettings | LightGBMSettings:
        return _MEMBER.validate_json(self.member)

    def reporter(self, step: str) -> Reporter:
        return Reporter(self.ledger, self.name, step, self.max_deaths)


def encode_shard(batch: pa.Table, work: Work) -> pa.Table:
    """Reads and encodes one shard. It travels as one cell, so that no splitting of blocks can cut it in two."""
    shard = batch["shard"][0].as_py()
    encoded, failed = _encoded(shard, work)
    cell = pa.array([_to_bytes(encoded)], pa.large_binary())
    return pa.table({"shard": [shard], "encoded": cell, "failed": [json.dumps(failed)]})


def _encoded(shard: int, work: Work) -> tuple[pa.Table, dict[int, str]]:
    """Returns a shard's encoded rows, and by their number in the run why rows could not be encoded."""
    conversations = scorable(read_table(RunDirectory(work.run).shard(shard)))
    encode, orders = _encoder(work.member, work.cells)
    parts, failed = compute_rows(
        conversations.num_rows,
        lambda start, stop: encode(conversations.slice(start, stop - start)),
        work.reporter("encode").rows(shard, conversations.num_rows),
    )
    return merged(parts or [encode(conversations.slice(0, 0))], orders), _by_row(conversations, failed)


def _by_row(rows: pa.Table, failed: Mapping[int, str]) -> dict[int, str]:
    """Returns the reasons of rows that failed by their number in the run instead of their place in `rows`."""
    return {rows["row"][place].as_py(): why for place, why in failed.items()}


@lru_cache(maxsize=4)
def _encoder(member: str, cells: CellForm) -> tuple[Callable[[pa.Table], pa.Table], int]:
    """A worker process keeps its tokenizer from shard to shard. The number is that of the orders of A and B."""
    settings = _MEMBER.validate_json(member)
    encode = make_encoder(settings, cells)
    return ((lambda rows: encode(both_orders(rows))), 2) if settings.swap else (encode, 1)


class ShardScorer:
    """An actor of the pool: one replica of the member's model.

    Shards are computed in turns. While one is computed, its successor is read and encoded (unless a task did so), and
    its predecessor is written.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._run = RunDirectory(work.run)
        self._name = work.name
        self._reporter = work.reporter("score")
        self._failure: RunError | None = None
        self._turn = threading.Lock()
        self._encoding = threading.Lock()  # Tokenizers are not for two threads at once.
        settings = work.settings
        self._swap = settings.swap
        reserved = len(ray.get_gpu_ids())
        if not reserved:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # GPUs that it has not reserved are another actor's.
        try:
            with work.reporter("load").loading():
                if reserved:
                    _check_gpus(reserved)
                self._scorer = make_scorer(settings, work.cells)
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
            if "encoded" in batch.column_names:
                encoded = _from_bytes(batch["encoded"][0])
                encode_failures = {int(row): why for row, why in json.loads(batch["failed"][0].as_py()).items()}
            else:
                with self._encoding:
                    encoded, encode_failures = _encoded(shard, self._work)
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
        told |= {"usage": [asdict(usage)], "facts": [json.dumps(self._scorer.facts)]}
        told |= {"node": [here.get_node_id()], "replica": [here.get_actor_id()]}
        sentences = {"reasons": reasons, "notes": self._scorer.notes}
        return pa.table(told | {name: pa.array([texts], pa.list_(pa.string())) for name, texts in sentences.items()})

    def _score(self, shard: int, encoded: pa.Table, encode_failures: dict[int, str]) -> pa.Table:
        orders = 2 if self._swap else 1

        def compute(start: int, stop: int) -> pa.Table:
            rows = rows_between(encoded, start, stop, orders)
            return score_table(rows, self._scorer.score(rows), self._swap)

        count = encoded.num_rows // orders
        parts, failed = compute_rows(count, compute, self._reporter.rows(shard, count))
        scores = pa.concat_tables(parts or [score_table(encoded.slice(0, 0), np.empty((0, 3)), self._swap)])
        return with_failed(scores, encode_failures | _by_row(encoded, failed))


def _check_gpus(reserved: int) -> None:
    from lmsys_ray.members.llama.gpu_memory import check_reserved  # brings torch, which LightGBM's workers do without

    check_reserved(reserved)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(cell: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()
