"""The verdict on a run, and what to do next; only what the figures clearly say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmsys_ray.evaluation.evaluate import IN_USE, PRIOR
from lmsys_ray.report.facts import Facts
from lmsys_ray.report.gather import Gathered
from lmsys_ray.report.labelled import Gain, Judged
from lmsys_ray.words import counted

MANY_CUT = 0.2
"""Share of rows cut from which a longer max_length is worth a try."""

MUCH_IDLE = 0.25
"""Share of their time that replicas wait from which that is worth a look."""

SAME = 0.002
"""Mean divergence of two members, in nats, below which one of them adds little."""

MANY_TURNED = 0.15
"""Share of verdicts that change with the order, from which one order alone is doubtful."""

_ENDS = {
    "running": "This run is at work",
    "silent": "This run may be dead: its machine has not been heard of",
    "died": "This run died",
    "stopped": "This run was stopped",
    "failed": "This run failed",
}


def verdict(facts: Facts, judged: Mapping[str, Judged]) -> str:
    """Returns in a sentence or two how the run ended, and how good its blend is."""
    counts = facts.manifest.ingested
    if not facts.finished or counts is None:
        done = [f"{name} {len(facts.scored_at[name]):,} of {facts.shards:,} shards" for name in facts.members]
        about = f" ({facts.status.about})" if facts.status.about else ""
        ended = _ENDS.get(facts.status.state, "This run is not finished")
        earlier = " The outputs are those of an earlier start." if facts.status.submission else ""
        return f"Unfinished. {ended}{about}. Scored: {', '.join(done) or 'nothing'}.{earlier}"
    prior = facts.rejects.total()
    text = f"Finished: {counts.lines:,} rows" + (
        f", {counted(prior, 'reject')}." if prior else ", all with a score of their own."
    )
    if IN_USE in judged:
        margin = (judged[IN_USE].log_loss - judged[PRIOR].log_loss).intervals()[:, 0]
        clear = "clearly better than" if margin[1] < 0 else "not clearly better than"
        clear = "clearly worse than" if margin[0] > 0 else clear
        loss = float(judged[IN_USE].log_loss.values[0])
        text += f" Its blend has a log loss of {loss:.4f}, {clear} the shares of the classes alone."
    return text


def advice(facts: Facts, gathered: Gathered, judged: Mapping[str, Judged], gain: Gain | None) -> list[str]:
    """Returns sentences, the most useful first."""
    return [
        *_unfinished(facts),
        *_fit(facts, judged, gain),
        *_members(facts, gathered, judged),
        *_texts(facts, gathered),
        *_rejects(facts),
        *_machines(facts),
        *_labels(facts, gathered),
    ]


def _unfinished(facts: Facts) -> Iterator[str]:
    if facts.status.state in ("died", "stopped", "failed", "silent"):
        yield "Start the same command again: it goes on from what is done; so does score.py --output with this run."


def _fit(facts: Facts, judged: Mapping[str, Judged], gain: Gain | None) -> Iterator[str]:
    if gain is None or not gain.is_clear or not facts.finished:
        return
    low, high = -gain.difference.intervals()[::-1, 0]
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in gain.mix.weights.items())
    fitted = f"weights {weights} and temperature" if len(gain.mix.weights) > 1 else "a temperature of"
    has = "have" if len(gain.mix.weights) > 1 else "has"
    yield (
        f"Fit the blend: {fitted} {gain.mix.temperature:.3g} {has} a log loss that is "
        f"{-gain.difference.values[0]:.4f} lower ({low:.4f} to {high:.4f}) than the blend in use, judged out of fold "
        f"on {gain.rows:,} labelled rows. calibrate.py writes them as settings, and nothing is scored again."
    )


def _members(facts: Facts, gathered: Gathered, judged: Mapping[str, Judged]) -> Iterator[str]:
    for name in gathered.members:
        if name in judged and (judged[name].log_loss - judged[PRIOR].log_loss).intervals()[0, 0] > 0:
            yield (
                f"{name} is clearly worse than the shares of the classes alone: calibrate it, or leave it out with "
                f"--set members.{name}=null."
            )
    for (first, second), found in gathered.agreements.items():
        if found.rows and found.divergence / found.rows < SAME:
            yield f"{first} and {second} say nearly the same: one of them can be spared."
    for name, orders in gathered.orders.items():
        changed = orders.bias.changed / max(orders.bias.rows, 1)
        if changed > MANY_TURNED:
            yield f"{changed:.0%} of the verdicts of {name} change with the order: keep members.{name}.swap=true."


def _texts(facts: Facts, gathered: Gathered) -> Iterator[str]:
    for name, kept in gathered.kept.items():
        share = kept.cut / max(kept.rows, 1)
        if share > MANY_CUT:
            length: Any = facts.manifest.members.get(name, {}).get("max_length")
            now = f" (now {length:,})" if isinstance(length, int) else ""
            yield f"{name} read {share:.0%} of the rows only in part: raise members.{name}.max_length{now}."


def _rejects(facts: Facts) -> Iterator[str]:
    if facts.rejects:
        reason, count = facts.rejects.most_common(1)[0]
        rows = counted(facts.rejects.total(), "row")
        yield f"Look at rejects.jsonl: {rows}, most often because of: {reason} ({count:,})."
    counts = facts.manifest.ingested
    if counts and counts.warnings:
        yield f"Accepted with a warning: {counted(counts.warnings, 'row')}, first: {'; '.join(counts.warned[:1])}"


def _machines(facts: Facts) -> Iterator[str]:
    last = facts.manifest.last_start or {}
    for name, idle in (last.get("idle") or {}).items():
        if idle > MUCH_IDLE and facts.finished:
            yield f"The replicas of {name} waited {idle:.0%} of their time: fewer of them, or smaller shards, may do."
    deaths = {name for start in facts.manifest.starts for name, count in (start.get("deaths") or {}).items() if count}
    for name in sorted(deaths):
        yield f"Processes of {name} died and were started again: where memory was short, use fewer replicas or workers."


def _labels(facts: Facts, gathered: Gathered) -> Iterator[str]:
    if gathered.labelled is None and facts.finished:
        yield (
            "No row has a label, so nothing here says how right the scores are: label some rows, the doubtful ones "
            "among others chosen at random, and run evaluate.py and calibrate.py."
        )
