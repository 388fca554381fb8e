"""What will hurt: each function returns a sentence for the user, or None."""

from __future__ import annotations

from collections.abc import Sequence

from lmsys_ray.durations import duration
from lmsys_ray.ensemble.rejects import too_many
from lmsys_ray.planning.devices import GIB, Machine
from lmsys_ray.planning.loads import Loads
from lmsys_ray.planning.memory import Memory
from lmsys_ray.planning.reads import Reads
from lmsys_ray.words import counted

_GONE = 0.001
_MANY = 0.2
_SHARDS_EACH = 4
"""Shards for each replica below which the last ones leave many replicas without work."""

_GOOD_SHARDS_EACH = 24

_BUSY = 1.0
"""The load for each core, before a measurement, above which it is disturbed."""


def rejects_stop_the_run(rejects: int, rows: int, share: float, on_bad_row: str) -> str | None:
    """Warns of rejects that end the run at ingest."""
    if rejects and on_bad_row == "fail":
        return f"on_bad_row is fail, and {rejects:,} rows cannot be used: the run stops at the first"
    if too_many(rejects, rows, share):
        return (
            f"{rejects:,} of {rows:,} rows cannot be used, more than max_error_rate = {share:g} lets pass: the run "
            "stops after ingest"
        )
    return None


def response_b_gone(reads: Reads, truncation: str | None) -> str | None:
    """Warns of rows of which response B is not read at all."""
    kept = reads.kept.get("response_b")
    if kept is None or kept.gone < _GONE:
        return None
    why = f" (truncation: {truncation})" if truncation else ""
    remedy = "set truncation to balanced" if truncation == "right" else "raise max_length"
    return f"response B is cut away wholly in {kept.gone:.1%} of rows{why}; {remedy}"


def many_truncated(reads: Reads, max_length: int) -> str | None:
    """Warns of a sample of which many rows are cut."""
    if reads.truncated < _MANY:
        return None
    return f"{reads.truncated:.0%} of rows are cut to max_length = {max_length:,}"


def doubled_beginning(token: str | None) -> str | None:
    """Warns of rows that begin with the same special `token` twice."""
    if token is None:
        return None
    return f"each row begins with {token} twice, once from the template: leave it out of the template"


def rows_not_read(reads: Reads) -> str | None:
    """Warns of rows that the encoder refuses."""
    failed = sum(reads.failed.values())
    if not failed:
        return None
    return f"{failed / (failed + reads.rows):.1%} of rows cannot be read ({next(iter(reads.failed))})"


def slow_quantization(asked: str, fits_plain: bool) -> str | None:
    """Warns of bitsandbytes where the plain weights fit, which compute faster."""
    if asked not in ("int8", "nf4") or not fits_plain:
        return None
    return f"quantization {asked} saves memory, not time, and the weights fit in 16 bits here: auto is faster"


def no_fp8(loads: Loads, machine: Machine) -> str | None:
    """Warns of fp8 on a GPU without such products."""
    if loads.quantization != "fp8" or machine.gpu is None or machine.gpu.fp8:
        return None
    return f"{machine.gpu.name} has no fp8 products: the run is refused; take int8_dynamic"


def does_not_fit(memory: Memory, machine: Machine) -> str | None:
    """Warns of a model that its device cannot hold."""
    if memory.fits:
        return None
    remedy = "set quantization to int8 or nf4, or give a replica more GPUs (gpus_per_replica)"
    if not machine.gpus:
        remedy = "take a machine with more memory, or a smaller model"
    return f"needs {memory.needs / GIB:,.1f} GiB, {machine.device} has {memory.has / GIB:,.1f} GiB; {remedy}"


def large_shards(shards: int, replicas: int, rows: int, shard_rows: int) -> str | None:
    """Warns of shards of which too few come to each replica."""
    if replicas < 2 or shards >= _SHARDS_EACH * replicas or rows < _GOOD_SHARDS_EACH * replicas:
        return None
    better = rows // (_GOOD_SHARDS_EACH * replicas)
    idle = f", {replicas - shards:,} of which get none" if shards < replicas else ""
    return (
        f"{counted(shards, 'shard')} of {shard_rows:,} rows for {replicas:,} replicas{idle}: some wait for others; "
        f"set shard_rows to {better:,}"
    )


def busy(load: float | None, cores: int) -> str | None:
    """Warns of a measurement on a machine of which other processes want more than its cores; None: none was made."""
    if load is None or load <= _BUSY * cores:
        return None
    return (
        f"others are at work here (a load of {load:.0f} on {cores} cores), so that speeds and starts are those of a "
        "busy machine: measure again when it is idle"
    )


def late(seconds: float, deadline: float) -> str | None:
    """Warns of a run that takes longer than its deadline."""
    if seconds <= deadline:
        return None
    return f"the run takes {duration(seconds)}, longer than the deadline of {duration(deadline)}"


def present(found: Sequence[str | None]) -> list[str]:
    """Returns the sentences among what these functions returned."""
    return [sentence for sentence in found if sentence is not None]
