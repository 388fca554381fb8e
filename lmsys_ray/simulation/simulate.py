"""How well a pool of replicas is used: the dispatch of real passes, with replicas that sleep instead of computing.

A replica sleeps as long as a device of a given throughput would take for a shard's tokens, so that hundreds of replicas
fit on one machine. What remains is the cost of dispatch: waiting for work, and idling while the last shards are done.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray

from lmsys_ray.cluster.dispatch import dispatch
from lmsys_ray.cluster.pool import Pool
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import read_rows
from lmsys_ray.errors import RunError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.simulation.sleeping_replica import Sleeper, not_encoded
from lmsys_ray.storage.packaged import locate

Dispatch = Literal["dynamic", "static"]
Scenario = Literal["even", "slow replica", "long tail"]

_TAIL_SHARE = 0.01
_TAIL_FACTOR = 10


@dataclass(frozen=True)
class PoolUsage:
    """How well a simulated pass used its replicas."""

    replicas: int
    shards: int
    tokens: int
    seconds: float
    """From when the first replica was ready to the end of the last shard."""
    ideal_seconds: float
    """The least time that the same replicas, each from when it was ready, would need."""
    efficiency: float
    """Seconds that replicas computed over seconds that they were reserved, from being ready to the end of the pass."""


def shard_tokens(lengths: np.ndarray, rows: int, shard_rows: int, scenario: Scenario, seed: int = 0) -> np.ndarray:
    """Returns the tokens of each shard of `rows` rows in total, int64 [shards]; lengths are drawn from `lengths`.

    In `long tail` the last hundredth of the rows are ten times as long.
    """
    drawn = np.random.default_rng(seed).choice(lengths, rows).astype(np.int64)
    if scenario == "long tail":
        drawn[-max(1, int(rows * _TAIL_SHARE)) :] *= _TAIL_FACTOR
    return np.add.reduceat(drawn, np.arange(0, rows, shard_rows))


def row_tokens(path: str, model: str, max_length: int) -> np.ndarray:
    """Returns the tokens of each usable row of a file of conversations under the tokenizer of `model`, int64 [rows]."""
    settings = ClassifierSettings.model_validate({"kind": "classifier", "model": model, "max_length": max_length})
    encoder = ClassifierEncoder(settings)
    counts = []
    for table in read_rows(locate(path)):
        usable = table.filter(table["reason"].is_null())
        rows = pa.array(np.arange(usable.num_rows))
        counts.append(encoder.encode(usable.select(list(CELLS)).add_column(0, "row", rows))["tokens"].to_numpy())
    if not counts or not sum(map(len, counts)):
        raise RunError(f"{path} has no row that can be used; give another --input")
    return np.concatenate(counts)


def simulate(
    tokens: np.ndarray,
    replicas: int,
    tokens_per_second: float,
    kind: Dispatch,
    scenario: Scenario,
    start_seconds: float,
) -> PoolUsage:
    """Runs `replicas` that sleep through shards of `tokens` [shards] on the connected Ray cluster.

    `dynamic` hands out shards as a run does, most tokens first; `static` gives each replica one contiguous part, as the
    reference notebook does with its GPUs. All replicas are ready `start_seconds` after the pass begins, which must be
    enough for their processes to start on this machine. Raises `RunError` where there are fewer shards than replicas.
    """
    if len(tokens) < replicas:
        raise RunError(f"{len(tokens)} shards leave some of {replicas} replicas without work; lower --shard-rows")
    if kind == "static":
        tokens = np.array([part.sum() for part in np.array_split(tokens, replicas)])
    with TemporaryDirectory() as folder:
        slow = Path(folder) / "slow" if scenario == "slow replica" else None
        sleeper = {"tokens_per_second": tokens_per_second, "ready": time.time() + start_seconds, "slow": slow}
        run = _handed_out if kind == "dynamic" else _divided
        return usage(run(tokens, replicas, sleeper), tokens, replicas)


def _handed_out(tokens: np.ndarray, replicas: int, sleeper: dict[str, Any]) -> list[dict[str, Any]]:
    order = np.argsort(-tokens, kind="stable")
    items = [{"shard": int(shard), "tokens": int(tokens[shard])} for shard in order]
    return list(dispatch(items, not_encoded, Sleeper, sleeper, Pool(replicas, cpus=0)))


def _divided(parts: np.ndarray, replicas: int, sleeper: dict[str, Any]) -> list[dict[str, Any]]:
    remote: Any = ray.remote(num_cpus=0)(Sleeper)
    actors = [remote.remote(**sleeper) for _ in range(replicas)]
    batches = [pa.table({"shard": [number], "tokens": [int(part)]}) for number, part in enumerate(parts)]
    work = [actor.__call__.remote(batch) for actor, batch in zip(actors, batches, strict=True)]
    return [row for table in ray.get(work) for row in table.to_pylist()]


def usage(spans: Sequence[dict[str, Any]], tokens: np.ndarray, replicas: int) -> PoolUsage:
    """Summarises a pass; `spans` has for each shard: replica, ready, began, ended, speed.

    A replica that got no shard counts as ready, and idle, from the beginning of the pass.
    """
    if sorted(span["shard"] for span in spans) != list(range(len(tokens))):
        raise RunError(f"of {len(tokens)} shards {len(spans)} came back; this must not happen, please report it")
    ready = {span["replica"]: span["ready"] for span in spans}
    speed = {span["replica"]: span["speed"] for span in spans}
    first, end = min(ready.values()), max(span["ended"] for span in spans)
    idle = replicas - len(ready)
    held = sum(end - moment for moment in ready.values()) + idle * (end - first)
    busy = sum(span["ended"] - span["began"] for span in spans)
    lost = sum(speed[replica] * (ready[replica] - first) for replica in ready)
    total = sum(speed.values()) + idle * max(speed.values())
    ideal = (float(tokens.sum()) + lost) / total
    return PoolUsage(replicas, len(tokens), int(tokens.sum()), end - first, ideal, busy / held)
