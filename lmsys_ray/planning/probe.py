"""Measures a member's speed on this machine, by loading it in this process and scoring some rows."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.errors import UsageError
from lmsys_ray.fault_tolerance.row_isolation import compute_rows
from lmsys_ray.members.orders import both_orders, merged, rows_between
from lmsys_ray.members.protocol import Encoder, MemberSettings
from lmsys_ray.members.registry import kind_of
from lmsys_ray.planning.speed import Speed

_WARM_UP = 4
"""Rows that are scored before the measurement, since the first call of a device or a library is slower."""

_LEAST_SECONDS, _MOST_ROUNDS = 1.0, 20
"""The rows are scored again until so much time has passed, but not more often than that."""


def probe_rows(sample: pa.Table, rows: int) -> pa.Table:
    """Returns `rows` of a sample whose lengths are distributed as in it, in their order there."""
    if rows >= sample.num_rows:
        return sample
    order = np.argsort(row_bytes(sample), kind="stable")
    places = ((np.arange(rows) + 0.5) * sample.num_rows / rows).astype(np.int64)
    return sample.take(np.sort(order[places]))


def row_bytes(rows: pa.Table) -> np.ndarray:
    """Returns the bytes of the texts of each row, int64 [rows]."""
    found: np.ndarray = sum(pc.binary_length(rows[cell]).to_numpy() for cell in CELLS)
    return found


def probe(
    name: str, settings: MemberSettings, cells: CellForm, rows: pa.Table, shard_rows: int, in_tokens: bool
) -> Speed:
    """Loads a member and returns the speed at which it encodes and scores `rows`, shard by shard.

    It is in tokens, which its encoder counts, or else in bytes of the texts. Raises `UsageError` where it cannot be
    loaded, or scores none of the rows.
    """
    kind = kind_of(settings)
    began = time.perf_counter()
    try:
        encoder = kind.encoder(settings, cells)
        scorer = kind.scorer(settings, cells)
    except UsageError as error:
        raise UsageError(f"members.{name}: {error}") from None
    load = time.perf_counter() - began
    orders = 2 if settings.swap else 1

    def score(part: pa.Table) -> tuple[float, float, float, int]:
        encoded, encoding = _encoded(encoder, part, orders)
        at = time.perf_counter()
        scored, _ = compute_rows(
            encoded.num_rows // orders,
            lambda start, stop: scorer.score(rows_between(encoded, start, stop, orders)),
            lambda start, stop: nullcontext(),
        )
        return _units(encoded, part, in_tokens), encoding, time.perf_counter() - at, len(scored)

    score(rows.slice(0, _WARM_UP))
    units = encoding = scoring = 0.0
    parts = [rows.slice(start, shard_rows) for start in range(0, rows.num_rows, shard_rows)]
    rounds = done = 0
    while rounds < _MOST_ROUNDS and encoding + scoring < _LEAST_SECONDS:
        rounds += 1
        for part in parts:
            found = score(part)
            units, encoding, scoring = units + found[0], encoding + found[1], scoring + found[2]
            done += found[3]
    if not done:
        raise UsageError(f"members.{name}: none of the {rows.num_rows} rows of --probe could be scored; try more rows")
    # Tasks on the CPU encode ahead of a GPU; on a CPU the replica encodes for itself.
    seconds = scoring if kind.lane == "device" and _on_gpu(settings) else encoding + scoring
    again = f", {rounds} times" if rounds > 1 else ""
    source = f"measured here: {rows.num_rows:,} rows{again} in {encoding + scoring:.1f} s"
    units = max(units, 1.0)  # texts may all be empty
    return Speed("tokens" if in_tokens else "bytes", units / max(seconds, 1e-9), load, True, source)


def _encoded(encoder: Encoder | None, rows: pa.Table, orders: int) -> tuple[pa.Table, float]:
    """Returns what the scorer receives for rows, in both orders where there are two, and the seconds that it took."""
    began = time.perf_counter()

    def encode(start: int, stop: int) -> pa.Table:
        part = rows.slice(start, stop - start)
        part = both_orders(part) if orders == 2 else part
        return part if encoder is None else encoder.encode(part)

    parts, _ = compute_rows(rows.num_rows, encode, lambda start, stop: nullcontext())
    return merged(parts or [encode(0, 0)], orders), time.perf_counter() - began


def _units(encoded: pa.Table, rows: pa.Table, in_tokens: bool) -> float:
    if in_tokens:
        return float(pc.sum(encoded["tokens"]).as_py() or 0)
    return float(row_bytes(rows).sum())


def _on_gpu(settings: MemberSettings) -> bool:
    import torch

    return torch.cuda.is_available() and getattr(settings, "device", "cpu") != "cpu"


def import_seconds() -> float:
    """Returns how long a new process takes to import Ray, the yardstick of what a start of Ray costs here.

    Ray is not started. The median of three counts: the first may read files from the disk, and others work here too.
    """
    found = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import ray.data"], check=False, capture_output=True)
        found.append(time.perf_counter() - began)
    return sorted(found)[1]
