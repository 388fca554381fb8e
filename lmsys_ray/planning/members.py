"""What a plan says of one member."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

import pyarrow as pa

from lmsys_ray.checkpoints.settings import TokenizerSettings
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.errors import UsageError
from lmsys_ray.members.protocol import Lane, MemberSettings
from lmsys_ray.members.registry import kind_of
from lmsys_ray.planning import warnings
from lmsys_ray.planning.devices import Machine
from lmsys_ray.planning.forecast import Pass
from lmsys_ray.planning.input import InputFacts
from lmsys_ray.planning.loads import Loads, NamesModel, read_loads
from lmsys_ray.planning.memory import Memory, fits_plain, memory_of
from lmsys_ray.planning.options import Options
from lmsys_ray.planning.probe import probe, probe_rows
from lmsys_ray.planning.reads import Reads, doubled_start, read_sample, shortened
from lmsys_ray.planning.speed import Speed, assumed_speed
from lmsys_ray.scoring.settings import Settings

_SHOWN_TOKENS = 300
"""Tokens of either end of a long row that are shown."""


@dataclass(frozen=True)
class Shown:
    """A sequence of a row as the model sees it."""

    beginning: str
    left_out: int
    """Tokens between the beginning and the end that are not shown."""
    end: str


@dataclass(frozen=True)
class MemberPlan:
    """What a member reads, loads and takes."""

    name: str
    kind: str
    weight: float
    lane: Lane
    on_gpus: bool
    orders: int
    """How often each row is scored: 2 where both orders of A and B are."""
    max_length: int | None = None
    reads: Reads | None = None
    row: list[Shown] = field(default_factory=list)
    loads: Loads | None = None
    memory: Memory | None = None
    speed: Speed | None = None
    """None where it is not known."""
    warnings: list[str] = field(default_factory=list)


def plan_member(
    name: str, settings: MemberSettings, run: Settings, sample: pa.Table, machine: Machine, options: Options, shard: int
) -> MemberPlan:
    """Returns the plan of a member of `run`; `shard` is the number of rows of a shard.

    Raises `UsageError` where it cannot read a row, or be loaded.
    """
    kind = kind_of(settings)
    on_gpus = kind.lane == "device" and machine.gpus > 0 and getattr(settings, "device", "auto") != "cpu"
    machine = machine if on_gpus else machine.on_its_cpu()
    found = MemberPlan(name, settings.kind, settings.weight, kind.lane, on_gpus, 2 if settings.swap else 1)
    reads = loads = None
    try:
        if isinstance(settings, NamesModel):
            encoder = kind.encoder(settings, run.cells)
            reads = read_sample(encoder, sample, settings.max_length) if encoder else None
            loads = read_loads(settings, machine)
    except UsageError as error:
        raise UsageError(f"members.{name}: {error}") from None
    speed = None
    if options.probe and sample.num_rows and (machine.here or not on_gpus):
        rows = probe_rows(sample, options.probe)
        speed = probe(name, settings, run.cells, rows, shard, in_tokens=reads is not None)
    if not isinstance(settings, NamesModel) or loads is None:
        return replace(found, speed=speed)
    budget = settings.batch_tokens if isinstance(settings.batch_tokens, int) else None
    memory = memory_of(loads, machine, settings.gpus_per_replica, budget)
    if speed is None and on_gpus and machine.gpu is not None and reads is not None:
        speed = assumed_speed(loads, reads.lengths, machine.gpu)
    row, doubled = _shown(settings, reads)
    return replace(
        found,
        speed=speed,
        max_length=settings.max_length,
        reads=reads,
        row=row,
        loads=loads,
        memory=memory,
        warnings=_warnings(settings, machine, reads, loads, memory, doubled),
    )


def _warnings(
    settings: NamesModel, machine: Machine, reads: Reads | None, loads: Loads, memory: Memory, doubled: str | None
) -> list[str]:
    plain = machine.gpus > 0 and fits_plain(loads, machine, settings.gpus_per_replica)
    said = [
        warnings.does_not_fit(memory, machine),
        warnings.no_fp8(loads, machine),
        warnings.slow_quantization(settings.quantization, plain),
        warnings.doubled_beginning(doubled),
    ]
    if reads is not None:
        said += [
            warnings.response_b_gone(reads, getattr(settings, "truncation", None)),
            warnings.many_truncated(reads, settings.max_length),
            warnings.rows_not_read(reads),
        ]
    return warnings.present(said)


def pass_of(plan: MemberPlan, settings: MemberSettings, facts: InputFacts, machine: Machine) -> Pass | None:
    """Returns a member's pass on a machine; None where its speed is not known.

    Raises `UsageError` where its replicas have no room there.
    """
    if plan.speed is None:
        return None
    shards = shards_of(facts)
    try:
        pool = kind_of(settings).placement(settings, shards, Resources(machine.cores, machine.gpus))
    except UsageError as error:
        raise UsageError(f"members.{plan.name}: {error}") from None
    units = facts.scorable * units_of_row(plan, facts)
    cores = 0.0 if pool.gpus else float(machine.cores if pool.whole_machine else pool.size)
    # Replicas that share a CPU share its speed, which one replica on all cores was measured at.
    slower = pool.size if pool.whole_machine and not pool.gpus else 1
    seconds = units / plan.speed.rate / shards * slower
    return Pass(plan.name, plan.lane, pool.size, cores, shards, seconds, plan.speed.load, plan.speed.measured)


def units_of_row(plan: MemberPlan, facts: InputFacts) -> float:
    """Returns the units of `Speed` that a row has, in the mean: tokens in all orders, or bytes of texts."""
    if plan.speed is not None and plan.speed.units == "tokens" and plan.reads is not None:
        return float(plan.reads.tokens.mean()) * plan.orders
    return facts.row_bytes


def shards_of(facts: InputFacts) -> int:
    """Returns how many shards the input makes; one at least."""
    return max(1, ceil(facts.rows / facts.shard_rows))


def _shown(settings: TokenizerSettings, reads: Reads | None) -> tuple[list[Shown], str | None]:
    """Returns a row as the model sees it, and the special token with which it begins twice, if it does."""
    if reads is None:
        return [], None
    from lmsys_ray.checkpoints.sources import read_tokenizer

    tokenizer = read_tokenizer(settings.model, settings.adapter, settings.append_eos).tokenizer
    special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    doubled = doubled_start(reads.ids, special)
    token = None if doubled is None else tokenizer.id_to_token(doubled)
    return [Shown(*shortened(tokenizer, ids, _SHOWN_TOKENS)) for ids in reads.ids], token
