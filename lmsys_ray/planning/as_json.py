"""A plan as one JSON object for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lmsys_ray.planning.forecast import Forecast
from lmsys_ray.planning.members import MemberPlan
from lmsys_ray.planning.plan import Plan
from lmsys_ray.planning.reads import Reads, histogram


def as_dict(plan: Plan) -> dict[str, Any]:
    """Returns a plan as JSON can hold it; seconds, bytes and shares are plain numbers."""
    machine = plan.machine
    return {
        "input": asdict(plan.input),
        "machine": {
            "device": machine.device,
            "gpus": machine.gpus,
            "cores": machine.cores,
            "memory": machine.memory,
            "here": machine.here,
        },
        "shards": plan.shards,
        "members": {name: _member(member) for name, member in plan.members.items()},
        "passes": {name: {**asdict(each), "seconds": each.seconds} for name, each in plan.passes.items()},
        "forecast": None if plan.forecast is None else _forecast(plan.forecast),
        "unknown": plan.unknown,
        "needed": None if plan.needed is None else asdict(plan.needed),
        "warnings": plan.warnings,
    }


def _forecast(found: Forecast) -> dict[str, Any]:
    derived = {"seconds": found.seconds, "gpu_hours": found.gpu_hours, "cost": found.cost}
    return {**asdict(found), **derived}


def _member(member: MemberPlan) -> dict[str, Any]:
    memory = member.memory
    return {
        "kind": member.kind,
        "weight": member.weight,
        "lane": member.lane,
        "on_gpus": member.on_gpus,
        "orders": member.orders,
        "max_length": member.max_length,
        "reads": None if member.reads is None else _reads(member.reads),
        "row": [asdict(shown) for shown in member.row],
        "loads": None if member.loads is None else asdict(member.loads),
        "memory": None if memory is None else {**asdict(memory), "needs": memory.needs, "fits": memory.fits},
        "speed": None if member.speed is None else asdict(member.speed),
    }


def _reads(reads: Reads) -> dict[str, Any]:
    return {
        "rows": reads.rows,
        "failed": reads.failed,
        "tokens": {**reads.quantiles, "mean": float(reads.tokens.mean())},
        "histogram": [{"from": first, "to": last, "rows": rows} for first, last, rows in histogram(reads.tokens)],
        "sequences": reads.sequences,
        "truncated": reads.truncated,
        "exact": reads.exact,
        "kept": {cell: asdict(kept) for cell, kept in reads.kept.items()},
        "shown": reads.shown,
    }
