"""The plan of a run: what it reads, what its members need, and how long it takes. Nothing is started or written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import pyarrow as pa

from lmsys_ray.errors import UsageError
from lmsys_ray.planning import warnings
from lmsys_ray.planning.devices import Machine, machine_for
from lmsys_ray.planning.forecast import Forecast, Pass, StartUp, forecast, gpus_needed
from lmsys_ray.planning.input import InputFacts, read_input
from lmsys_ray.planning.members import MemberPlan, pass_of, plan_member, shards_of
from lmsys_ray.planning.options import Options
from lmsys_ray.planning.probe import import_seconds
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings

_MOST_GPUS = 4096


@dataclass(frozen=True)
class Needed:
    """The smallest number of GPUs that meets a deadline."""

    deadline: float
    gpus: int | None
    """None where no number does."""
    seconds: float | None
    """With so many, or the least that is possible."""


@dataclass(frozen=True)
class Plan:
    """What a run will be."""

    input: InputFacts
    machine: Machine
    shards: int
    members: Mapping[str, MemberPlan]
    passes: Mapping[str, Pass]
    forecast: Forecast | None
    """None where no member's speed is known."""
    unknown: list[str]
    """Members whose speed is not known, so that the forecast leaves them out."""
    needed: Needed | None
    warnings: list[str]


def make_plan(settings: Settings, options: Options, display: Display) -> Plan:
    """Returns the plan of a run with `settings`, as `lmsys_ray.scoring.preflight.check` returned them.

    Raises `UsageError` and `RunError` where the run itself would, as far as that can be known.
    """
    machine = machine_for(options.gpu, options.gpus)
    if options.price is not None and not machine.gpus:
        raise UsageError(f"--price: {options.price:g} is of a GPU, and this machine has none; name one with --gpu")
    load = os.getloadavg()[0] if options.probe else None
    facts, sample = _read(settings, options, display)
    scored = {name: member for name, member in settings.members.items() if member.weight > 0}
    members: dict[str, MemberPlan] = {}
    for name, member in scored.items():
        with display.during(f"members.{name}"):
            members[name] = plan_member(name, member, settings, sample, machine, options, facts.shard_rows)
    start_up = StartUp.of(import_seconds() if options.probe else None)

    def passes_on(where: Machine) -> dict[str, Pass]:
        found = {name: pass_of(members[name], scored[name], facts, where) for name in scored}
        return {name: each for name, each in found.items() if each is not None}

    def forecast_on(where: Machine, passes: Mapping[str, Pass]) -> Forecast | None:
        every = list(passes.values())
        return (
            forecast(every, facts.rows, reading_seconds(facts), start_up, where.cores, where.gpus, options.price)
            if every
            else None
        )

    def seconds_with(gpus: int) -> float | None:
        where = machine.with_gpus(gpus)
        try:
            found = forecast_on(where, passes_on(where))
        except UsageError:  # its members need more GPUs than these
            return None
        return None if found is None else found.seconds

    passes = passes_on(machine)
    foreseen = forecast_on(machine, passes)
    needed = None
    if options.deadline is not None and foreseen is not None and machine.gpus:
        most = min(_MOST_GPUS, most_useful(passes, settings))
        needed = Needed(options.deadline, *gpus_needed(seconds_with, options.deadline, most))
    return Plan(
        input=facts,
        machine=machine,
        shards=shards_of(facts),
        members=members,
        passes=passes,
        forecast=foreseen,
        unknown=[name for name in scored if name not in passes],
        needed=needed,
        warnings=[
            *warnings.present([warnings.busy(load, len(os.sched_getaffinity(0)))]),
            *_warnings(settings, options, facts, machine, members, passes, foreseen),
        ],
    )


def _read(settings: Settings, options: Options, display: Display) -> tuple[InputFacts, pa.Table]:
    progress = display.begin("input", settings.limit)

    def on_rows(rows: int) -> None:
        progress.add(rows)
        display.show(progress)

    with display.during("input"):
        found = read_input(settings, options, on_rows)
    display.finish(progress)
    return found


def reading_seconds(facts: InputFacts) -> float:
    """Returns what reading the whole input takes, by what reading a part of it took here."""
    return facts.seconds * facts.rows / max(1, facts.rows_read)


def most_useful(passes: Mapping[str, Pass], settings: Settings) -> int:
    """Returns the number of GPUs with which each shard of each pass has a replica of its own."""
    each = [
        passes[name].shards * float(getattr(settings.members[name], "gpus_per_replica", 1))
        for name in passes
        if passes[name].lane == "device"
    ]
    return max(1, ceil(max(each, default=1)))


def _warnings(
    settings: Settings,
    options: Options,
    facts: InputFacts,
    machine: Machine,
    members: Mapping[str, MemberPlan],
    passes: Mapping[str, Pass],
    foreseen: Forecast | None,
) -> list[str]:
    said = [
        warnings.rejects_stop_the_run(facts.rejects, facts.rows, settings.max_error_rate, settings.on_bad_row),
    ]
    if options.deadline is not None and foreseen is not None:
        said.append(warnings.late(foreseen.seconds, options.deadline))
    wanted = max((replicas_wanted(each, settings, machine) for each in passes.values()), default=1)
    said.append(warnings.large_shards(shards_of(facts), wanted, facts.rows, facts.shard_rows))
    own = [f"{name}: {sentence}" for name, member in members.items() for sentence in member.warnings]
    return [*warnings.present(said), *own]


def replicas_wanted(each: Pass, settings: Settings, machine: Machine) -> int:
    """Returns how many replicas a pass would have with shards enough."""
    if each.cores or not machine.gpus:
        return each.replicas
    return max(each.replicas, int(machine.gpus // getattr(settings.members[each.name], "gpus_per_replica", 1)))
