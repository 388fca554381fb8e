"""A plan as text for a terminal of 80 columns."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lmsys_ray.durations import duration
from lmsys_ray.planning.forecast import Forecast, Pass
from lmsys_ray.planning.input import InputFacts
from lmsys_ray.planning.members import MemberPlan, Shown
from lmsys_ray.planning.memory import Memory
from lmsys_ray.planning.plan import Needed, Plan
from lmsys_ray.planning.reads import Reads, histogram
from lmsys_ray.printable import printable
from lmsys_ray.words import counted, many, size

_WIDTH = 80
_BAR = 30
_REASONS = 5


def show(plan: Plan) -> None:
    """Prints a plan; 80 columns wide where the output is not a terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        for part in _parts(plan):
            console.print(part)
    else:
        print(as_text(plan), end="", flush=True)


def as_text(plan: Plan, width: int = _WIDTH) -> str:
    """Returns a plan as plain text."""
    file = io.StringIO()
    console = Console(file=file, highlight=False, markup=False, emoji=False, width=width)
    for part in _parts(plan):
        console.print(part)
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def _parts(plan: Plan) -> Iterator[RenderableType]:
    yield from _section("input", _input(plan.input))
    for member in plan.members.values():
        title = f"member {member.name}: {member.kind}, weight {member.weight:g}"
        yield from _section(title, _member(member))
        if member.reads is not None:
            yield Padding(_bars(member.reads), (0, 0, 0, 2))
            yield from _row(member.row, member.reads.shown)
    yield from _section("the run", _run(plan))
    if plan.warnings:
        yield from _section(f"warnings: {len(plan.warnings)}", [("", sentence) for sentence in plan.warnings], "-")


def _section(title: str, lines: list[tuple[str, str]], mark: str = "") -> Iterator[RenderableType]:
    yield Rule(title, align="left", style="bold", characters="─")
    grid = Table.grid(padding=(0, 1 if mark else 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in lines:
        grid.add_row(Text(mark or name), Text(printable(text)))
    yield Padding(grid, (0, 0, 0, 2))


def _input(facts: InputFacts) -> list[tuple[str, str]]:
    about = "" if facts.exact else f" (estimated from bytes; {facts.rows_read:,} were read, --whole reads all)"
    files = counted(facts.files, "file")
    lines = [
        ("files", f"{files}, {size(facts.bytes)}, read in {duration(facts.seconds) if facts.seconds >= 1 else '<1 s'}"),
        *(("", sentence.removeprefix("input: ")) for sentence in facts.sentences),
        ("rows", f"{facts.rows:,}{about}, {facts.scorable:,} to score, {size(facts.row_bytes)} of text each"),
        ("rejects", f"{facts.rejects:,}"),
    ]
    lines += [("", f"{count:,}: {reason}") for reason, count in list(facts.reasons.items())[:_REASONS]]
    return lines + ([("warnings", f"{facts.warnings:,} rows, which a run names")] if facts.warnings else [])


def _member(plan: MemberPlan) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if (loads := plan.loads) is not None:
        adapter = f" and an adapter of {many(loads.adapter_parameters)}" if loads.adapter_parameters else ""
        blocks = f"{loads.blocks} blocks, {many(loads.parameters)} parameters{adapter}"
        lines += [
            ("loads", f"{loads.architecture}, {blocks}"),
            ("weights", f"quantization {loads.quantization}, in {loads.dtype}; in the files: {loads.stored}"),
            ("attention", loads.attention),
            ("tokenizer", f"{loads.tokenizer}, {loads.vocabulary:,} tokens"),
            ("head", f"{loads.head}; pooling: {loads.pooling}"),
        ]
    if plan.memory is not None:
        lines.append(("memory", _memory(plan.memory)))
    lines.append(("speed", _speed(plan)))
    if (reads := plan.reads) is not None:
        sequences = "" if reads.sequences == 1 else f" in {reads.sequences} sequences"
        orders = ", scored in both orders" if plan.orders == 2 else ""
        told = ", ".join(f"{name} {tokens:,}" for name, tokens in reads.quantiles.items())
        lines += [
            ("tokens", f"of a row{sequences}{orders}: {told}; mean {reads.tokens.mean():,.0f}"),
            ("truncated", _truncated(reads, plan.max_length or 0)),
        ]
    return lines


def _memory(memory: Memory) -> str:
    activations = f"{size(memory.activations)} activations of {memory.batch_tokens:,} tokens"
    context = f", {size(memory.context)} CUDA" if memory.context else ""
    parts = f"{size(memory.weights)} weights, {activations}{context}"
    needs = f"{size(memory.needs)} ({parts})"
    return f"{needs}; has {size(memory.has)}: {'fits' if memory.fits else 'does not fit'}" if memory.has else needs


def _speed(plan: MemberPlan) -> str:
    if plan.speed is None:
        assumed = " (or --gpu NAME, to assume one)" if plan.lane == "device" else ""
        return f"not known: --probe 64 measures it on this machine{assumed}"
    rate = f"{plan.speed.rate:,.0f} tokens/s" if plan.speed.units == "tokens" else f"{size(plan.speed.rate)}/s of text"
    return f"{rate}, {plan.speed.source}; loads in {plan.speed.load:.1f} s"


def _truncated(reads: Reads, max_length: int) -> str:
    exact = "" if reads.exact else "rows that fill it: "
    text = f"{exact}{reads.truncated:.1%} of {reads.rows:,} rows, at {max_length:,} tokens a sequence"
    if not reads.kept:
        return text
    kept = ", ".join(f"{cell} {share.mean:.1%}" for cell, share in reads.kept.items())
    return f"{text}; read in the mean: {kept}"


def _bars(reads: Reads) -> Table:
    grid = Table.grid(padding=(0, 1))
    for justify in ("right", "left", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    bars = histogram(reads.tokens)
    most = max(rows for *_, rows in bars)
    for first, last, rows in bars:
        bar = "█" * round(_BAR * rows / most) or ("▏" if rows else "")
        grid.add_row(f"{first:,} to {last:,} tokens", bar, f"{rows:,}")
    return grid


def _row(shown: list[Shown], name: str) -> Iterator[RenderableType]:
    for place, sequence in enumerate(shown):
        of = f", sequence {place + 1} of {len(shown)}" if len(shown) > 1 else ""
        yield Padding(Text(f"row {printable(name)}{of}, as the model reads it:", style="italic"), (0, 0, 0, 2))
        parts = [Text(printable(sequence.beginning))]
        if sequence.left_out:
            parts += [
                Text(f"[{sequence.left_out:,} tokens are not shown]", style="dim"),
                Text(printable(sequence.end)),
            ]
        yield Padding(Group(*parts), (0, 0, 0, 4))


def _run(plan: Plan) -> list[tuple[str, str]]:
    machine = plan.machine
    where = f"{machine.gpus} x {machine.device}" if machine.gpus else machine.device
    lines = [
        ("on", where + ("" if machine.here else f", not here; {machine.cores} CPU cores assumed")),
        ("shards", f"{plan.shards:,} of {plan.input.shard_rows:,} rows"),
    ]
    lines += [("", _pass(each)) for each in plan.passes.values()]
    if plan.forecast is not None:
        lines += _forecast(plan.forecast, plan.unknown)
    else:
        lines.append(("time", "not known, since no member's speed is: --probe 64 measures them on this machine"))
    return lines + ([("deadline", _needed(plan.needed))] if plan.needed else [])


def _pass(each: Pass) -> str:
    rounds = -(-each.shards // each.replicas)
    return (
        f"{each.name}: {counted(each.replicas, 'replica')}, {counted(rounds, 'shard')} for each at most, "
        f"{each.shard_seconds:,.2g} s a shard; {duration(each.seconds)}"
    )


def _forecast(found: Forecast, unknown: list[str]) -> list[tuple[str, str]]:
    how = "measured speeds" if found.measured else "assumed speeds"
    without = f", without {', '.join(unknown)}, whose speed is not known" if unknown else ""
    parts = f"starts {duration(found.start)}, reading {duration(found.ingest)}, passes {duration(found.scoring)}"
    lines = [
        (
            "time",
            f"{duration(found.seconds)}, expected {duration(found.low)} to {duration(found.high)} ({how}){without}",
        ),
        ("", f"{parts}, join {duration(found.join)}"),
    ]
    if found.gpus:
        cost = "" if found.cost is None else f", {found.cost:,.2f} at {found.price:g} a GPU-hour"
        lines.append(("GPU-hours", f"{found.gpu_hours:,.2f}{cost}"))
    return lines


def _needed(needed: Needed) -> str:
    if needed.gpus is not None:
        return f"{counted(needed.gpus, 'GPU')} for {duration(needed.deadline)}: takes {duration(needed.seconds or 0)}"
    least = (
        f"the least is {duration(needed.seconds)}, by loading and one shard" if needed.seconds else "none can run it"
    )
    return f"no number of GPUs meets {duration(needed.deadline)}: {least}; smaller shard_rows help"
