"""How well a pool of replicas would be used: the passes' own dispatch, with replicas that sleep instead of computing.

A replica sleeps as long as a device of a known throughput would take for a shard's tokens, so that hundreds of replicas
fit on one machine and what remains is what the dispatch costs: waiting for work, and idling while the last shards are
under way.
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

from lmsys_ray.config import LlamaSettings
from lmsys_ray.conversations import CELLS
from lmsys_ray.errors import RunError
from lmsys_ray.members.llama.encode import LlamaEncoder
from lmsys_ray.passes import dispatch
from lmsys_ray.pools import Pool
from lmsys_ray.readers import read_rows
from lmsys_ray.resources import locate
from lmsys_ray.simulated_replica import Sleeper, as_it_is

Dispatch = Literal["dynamic", "static"]
Scenario = Literal["even", "slow replica", "long tail"]

_TAIL_SHARE = 0.01
_TAIL_FACTOR = 10


@dataclass(frozen=True)
class Usage:
    """How a simulated pass used its replicas."""

    replicas: int
    shards: int
    tokens: int
    seconds: float
    """From the moment the first replica was ready to the end of the last shard."""
    ideal_seconds: float
    """What the same replicas, each from the moment it was ready, needed at least."""
    efficiency: float
    """Seconds that replicas computed over seconds that they were held, from being ready to the end of the pass."""


def shard_tokens(lengths: np.ndarray, rows: int, shard_rows: int, scenario: Scenario, seed: int = 0) -> np.ndarray:
    """Returns the tokens of each shard of `rows` rows, int64 [shards]; their lengths are drawn from `lengths`.

    `long tail`: the last hundredth of the rows are ten times as long.
    """
    drawn = np.random.default_rng(seed).choice(lengths, rows).astype(np.int64)
    if scenario == "long tail":
        drawn[-max(1, int(rows * _TAIL_SHARE)) :] *= _TAIL_FACTOR
    return np.add.reduceat(drawn, np.arange(0, rows, shard_rows))


def row_tokens(path: str, model: str, max_length: int) -> np.ndarray:
    """Returns the tokens of each usable row of a file of conversations under the tokenizer of `model`, int64 [rows]."""
    settings = LlamaSettings.model_validate({"kind": "llama", "model": model, "max_length": max_length})
    encoder = LlamaEncoder(settings)
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
) -> Usage:
    """Lets `replicas` sleep through shards of `tokens` [shards] on the Ray cluster that is connected.

    `dynamic` hands out shards as a run does, most tokens first; `static` gives each replica one contiguous part, as the
    reference notebook gives each GPU one half. All replicas are ready `start_seconds` after the pass began, as on a
    cluster; here their processes queue for the cores of one machine, so give as much as that takes.

    Raises `RunError` where there are fewer shards than replicas.
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
    return list(dispatch(items, as_it_is, Sleeper, sleeper, Pool(replicas, cpus=0)))


def _divided(parts: np.ndarray, replicas: int, sleeper: dict[str, Any]) -> list[dict[str, Any]]:
    remote: Any = ray.remote(num_cpus=0)(Sleeper)
    actors = [remote.remote(**sleeper) for _ in range(replicas)]
    batches = [pa.table({"shard": [number], "tokens": [int(part)]}) for number, part in enumerate(parts)]
    work = [actor.__call__.remote(batch) for actor, batch in zip(actors, batches, strict=True)]
    return [row for table in ray.get(work) for row in table.to_pylist()]


def usage(spans: Sequence[dict[str, Any]], tokens: np.ndarray, replicas: int) -> Usage:
    """Sums up what the replicas did; `spans` tells of each shard: replica, ready, began, ended, speed.

    A replica that got no shard was ready when the pass began, as far as is known: it is held all the time.
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
    return Usage(replicas, len(tokens), int(tokens.sum()), end - first, ideal, busy / held)
