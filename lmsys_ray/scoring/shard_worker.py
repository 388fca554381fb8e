"""The workers of a pass: they read, encode and score one shard at a time and write its scores.

A file of scores is written whole or not at all, so that the run directory shows which shards are left.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from lmsys_ray.cluster.excluded_nodes import check_here
from lmsys_ray.cluster.shared_files import SharedFiles
from lmsys_ray.data.conversations import CellForm
from lmsys_ray.engine.usage import Usage
from lmsys_ray.errors import DamagedError, ExcludedNodeError, ReplacedError, RunError, UsageError
from lmsys_ray.fault_tolerance.row_isolation import compute_rows
from lmsys_ray.fault_tolerance.watchdog import Reporter
from lmsys_ray.members.orders import both_orders, merged, rows_between
from lmsys_ray.members.protocol import MemberSettings
from lmsys_ray.members.registry import Package, kind_of, package_of, validated
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import UNBOUND, Binding
from lmsys_ray.scoring.score_tables import (
    fault_in,
    invalid_rows,
    scorable,
    score_table,
    with_failed,
    with_kept_shares,
    without,
)
from lmsys_ray.scoring.scored_shard import ScoredShard
from lmsys_ray.storage.unchanged import Original, all_unchanged


@dataclass(frozen=True)
class PassSpec:
    """What the workers of a pass need; it is sent to each of them."""

    run: str
    name: str
    member: str
    """The member's settings as JSON."""
    cells: CellForm
    ledger: Any
    max_deaths: int
    package: Package | None = None
    """The installed package that offers the member's kind; every node must have it in this version."""
    binding: Binding = UNBOUND
    """The labels of the run's sealed files."""
    originals: tuple[Original, ...] = ()
    """The files of the member's model that the manifest names."""
    shared: SharedFiles | None = None
    """The files that a node must see to take part in this pass."""

    @property
    def settings(self) -> MemberSettings:
        """The settings of the member."""
        return _settings(self.member, self.package)

    def reporter(self, step: str) -> Reporter:
        """Returns what reports the work of a step to the ledger."""
        return Reporter(self.ledger, self.name, step, self.max_deaths)


def _settings(member: str, package: Package | None) -> MemberSettings:
    """Returns a member's settings; raises `UsageError` if this node lacks the package that offers its kind."""
    values = json.loads(member)
    if (here := package_of(values["kind"])) != package:
        raise UsageError(
            f"kind {values['kind']} is that of {package or 'lmsys_ray'} where the run was started, but of "
            f"{here or 'no package'} on node {ray.util.get_node_ip_address()}; install the same on every node"
        )
    return validated(values)


def encode_shard(batch: pa.Table, spec: PassSpec) -> pa.Table:
    """Reads and encodes one shard; the result is a single cell, so that Ray Data cannot split it into two blocks."""
    shard = batch["shard"][0].as_py()
    encoded, failed = _encoded(shard, spec)
    cell = pa.array([_to_bytes(encoded)], pa.large_binary())
    return pa.table({"shard": [shard], "encoded": cell, "failed": [json.dumps(failed)]})


def _encoded(shard: int, spec: PassSpec) -> tuple[pa.Table, dict[int, str]]:
    """Returns the encoded rows of a shard, and why rows failed, by their numbers in the run."""
    if spec.shared:
        check_here(spec.shared)
    conversations = scorable(RunDirectory(spec.run, spec.binding).read_shard(shard))
    encode, orders = _encoder(spec.member, spec.package, spec.cells, spec.originals)
    parts, failed = compute_rows(
        conversations.num_rows,
        lambda start, stop: encode(conversations.slice(start, stop - start)),
        spec.reporter("encode").rows(shard, conversations.num_rows),
    )
    return merged(parts or [encode(conversations.slice(0, 0))], orders), _by_row(conversations, failed)


def _by_row(rows: pa.Table, failed: Mapping[int, str]) -> dict[int, str]:
    """Returns `failed`, which is by place in `rows`, by the row's number in the run."""
    return {rows["row"][place].as_py(): why for place, why in failed.items()}


@lru_cache(maxsize=4)
def _encoder(
    member: str, package: Package | None, cells: CellForm, originals: tuple[Original, ...]
) -> tuple[Callable[[pa.Table], pa.Table], int]:
    """Returns the function that encodes rows, and the number of orders of A and B; a process keeps its tokenizer."""
    settings = _settings(member, package)
    with all_unchanged(originals):
        encoder = kind_of(settings).encoder(settings, cells)
    encode = encoder.encode if encoder else _unchanged
    return ((lambda rows: encode(both_orders(rows))), 2) if settings.swap else (encode, 1)


def _unchanged(conversations: pa.Table) -> pa.Table:
    return conversations


class ShardScorer:
    """An actor of the pool: one replica of the member's model.

    It computes one shard at a time. Meanwhile the next one is read and encoded, unless a task did so, and the previous
    one is written.
    """

    def __init__(self, spec: PassSpec) -> None:
        self._spec = spec
        self._run = RunDirectory(spec.run, spec.binding)
        self._name = spec.name
        self._reporter = spec.reporter("score")
        self._failure: RunError | None = None
        self._turn = threading.Lock()
        self._encoding = threading.Lock()  # Tokenizers are not thread-safe.
        reserved = len(ray.get_gpu_ids())
        if not reserved:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # GPUs that it has not reserved belong to other actors.
        try:
            if spec.shared:
                check_here(spec.shared)
            settings = spec.settings
            self._swap = settings.swap
            with spec.reporter("load").loading():
                if reserved:
                    _check_gpus(reserved)
                with all_unchanged(spec.originals):
                    self._scorer = kind_of(settings).scorer(settings, spec.cells)
        except RunError as error:
            # Raised by the first call instead, since Ray restarts an actor that fails in its constructor for ever.
            named = isinstance(error, ExcludedNodeError | ReplacedError)
            self._failure = error if named else type(error)(f"members.{spec.name}: {error}")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Scores the shard that `batch` names or holds, unless it is scored; returns a `ScoredShard` as a table."""
        if self._failure:
            raise self._failure
        shard = batch["shard"][0].as_py()
        seconds, usage = 0.0, Usage()
        try:
            # They exist if an actor died after writing them and before returning.
            scores = self._run.read_scores(self._name, shard)
        except DamagedError:
            if "encoded" in batch.column_names:
                encoded = _from_bytes(batch["encoded"][0])
                encode_failures = {int(row): why for row, why in json.loads(batch["failed"][0].as_py()).items()}
            else:
                with self._encoding:
                    encoded, encode_failures = _encoded(shard, self._spec)
            with self._turn:
                began = time.perf_counter()
                scores, usage = self._score(shard, encoded, encode_failures)
                seconds = time.perf_counter() - began
            self._run.write_scores(self._name, shard, scores)
        return self._result(shard, scores, seconds, usage).as_table()

    def _result(self, shard: int, scores: pa.Table, seconds: float, usage: Usage) -> ScoredShard:
        reasons = scores["reason"].drop_null().to_pylist() if "reason" in scores.column_names else []
        tokens = pc.sum(scores["tokens"]).as_py() or 0 if "tokens" in scores.column_names else 0
        here = ray.get_runtime_context()
        return ScoredShard(
            member=self._name,
            shard=shard,
            rows=scores.num_rows - len(reasons),
            tokens=tokens,
            reasons=reasons,
            node=here.get_node_id(),
            replica=here.get_actor_id() or "",
            seconds=seconds,
            usage=usage,
            facts=self._scorer.facts,
            notes=self._scorer.notes,
        )

    def _score(self, shard: int, encoded: pa.Table, encode_failures: dict[int, str]) -> tuple[pa.Table, Usage]:
        orders = 2 if self._swap else 1
        bad: dict[int, str] = {}
        usage = Usage()

        def compute(start: int, stop: int) -> pa.Table:
            rows = rows_between(encoded, start, stop, orders)
            scores = self._scorer.score(rows)
            usage.include(scores.usage)
            if fault := fault_in(scores, rows.num_rows):
                raise RunError(f"members.{self._name}: its kind gave {fault}; mend the kind")
            table = with_kept_shares(score_table(rows["row"], scores, self._swap), rows, orders)
            found = invalid_rows(table) | _by_row(rows, scores.failed)
            bad.update(found)
            return without(table, found)

        count = encoded.num_rows // orders
        parts, failed = compute_rows(count, compute, self._reporter.rows(shard, count))
        table = pa.concat_tables(parts) if parts else compute(0, 0)
        return with_failed(table, encode_failures | _by_row(encoded, failed) | bad), usage


def _check_gpus(reserved: int) -> None:
    from lmsys_ray.engine.gpu_memory import check_reserved  # imports torch, which LightGBM's workers do not need

    check_reserved(reserved)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(cell: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()
