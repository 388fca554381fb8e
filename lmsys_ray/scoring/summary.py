"""The last lines of a run: what became of every row, how fast, and where the files are."""

from lmsys_ray.ensemble.rejects import kinds
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.settings import Settings

_REASONS = 5
"""How many reasons for rejects are shown, the most frequent first."""


def summary(report: Report, settings: Settings, run: RunDirectory) -> list[str]:
    """Returns the lines that a command prints at the end of a run."""
    counts, seconds = report.ingested, report.seconds
    unscorable = len({row["id"] for row in report.unscorable})
    prior = counts.unscored + unscorable
    lines = [
        f"rows: {counts.rows:,} read, {counts.lines - prior:,} scored, {report.rejects:,} rejected",
        f"submission: {counts.lines:,} lines, {prior:,} of them the class prior",
    ]
    if report.rejects:
        shown = kinds(run.reject_reasons()).most_common(_REASONS)
        lines += [f"rejects: {count:,} of the kind: {kind}" for kind, count in shown]
    lines += [f"warning: {sentence}" for sentence in counts.warned]
    if counts.warnings > len(counts.warned):
        lines.append(f"warnings: {counts.warnings - len(counts.warned):,} more of this sort")
    lines += [_pass_line(name, report) for name, member in settings.members.items() if member.weight > 0]
    lines += [f"{name}: {bias}" for name, bias in report.biases.items()]
    lines += [f"{name}: {count} processes died or hung and were started again" for name, count in report.deaths.items()]
    lines.append("seconds: " + ", ".join(f"{stage} {value:,.1f}" for stage, value in seconds.items()))
    if report.rejects:
        lines.append(f"rejects and their reasons: {run.rejects}")
    lines += report.written
    lines.append(f"members' own probabilities: {run.path / 'scores'}")
    return lines


def _pass_line(name: str, report: Report) -> str:
    rows, seconds = report.scored.get(name, 0), report.seconds.get(f"pass {name}", 0.0)
    if not rows:
        return f"{name}: nothing to score, all shards were done"
    line = f"{name}: {rows:,} rows in {seconds:,.1f} s, {rows / seconds:,.1f} rows/s"
    tokens, nodes = report.tokens.get(name), len(report.nodes.get(name, ()))
    line += f", {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s" if tokens else ""
    line += f", on {nodes} nodes" if nodes > 1 else ""
    if not tokens or name not in report.idle:
        return line
    used = report.usage[name]
    line += f", replicas idle {report.idle[name]:.1%}, padding {used.padding_share:.1%}"
    line += f", micro-batches {used.filled_share:.0%} full"
    return line + (f", {used.shared_share:.0%} of the tokens shared" if used.shared else "")
