"""The tables of a report, as lists of rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmsys_ray.evaluation.evaluate import IN_USE, PRIOR
from lmsys_ray.metrics import Estimate
from lmsys_ray.printable import printable
from lmsys_ray.report.counts import KEPT
from lmsys_ray.report.facts import Facts
from lmsys_ray.report.gather import ORDERS, Gathered
from lmsys_ray.report.labelled import Judged

MOST_STARTS = 12
MOST_MODELS = 40
MOST_FILES = 50


@dataclass(frozen=True)
class Table:
    """A table: its first column names the row. Columns of numbers stand to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()
    """Columns, beside the first, that hold words."""

    @property
    def shown(self) -> list[list[str]]:
        """The rows without characters that change how a page is read."""
        return [[printable(cell) for cell in row] for row in self.rows]


def interval(estimate: Estimate, digits: int = 4, sign: str = "") -> str:
    """Returns a value with its 95 % interval."""
    low, high = estimate.intervals()[:, 0]
    return f"{estimate.values[0]:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def files(facts: Facts) -> Table:
    """Returns the files of the input."""
    found = facts.manifest.ingest.input
    rows = [[file.path, f"{file.bytes:,}", file.digest] for file in found[:MOST_FILES]]
    shown = f", the first {MOST_FILES} of {len(found):,}" if len(found) > MOST_FILES else ""
    return Table(f"Files of the input{shown}", ("file", "bytes", "digest"), rows, words=(2,))


def rejects(facts: Facts) -> Table:
    """Returns the rejects by the kind of their reason."""
    rows = [[reason, f"{count:,}"] for reason, count in facts.rejects.most_common(20)]
    return Table("Rows without a score of their own", ("reason", "rows"), rows)


def members(facts: Facts) -> Table:
    """Returns the members of the blend, with the main settings of each."""
    weights = facts.settings.blending().weights
    rows = []
    for name, weight in weights.items():
        known = facts.manifest.members.get(name, {})
        model = next((str(known[key]) for key in ("model", "artifacts", "path") if known.get(key)), "")
        digest = ", ".join(str(value) for key, value in known.items() if key.endswith("_content"))
        rows.append([name, str(known.get("kind", "")), f"{weight:.3g}", model, str(known.get("adapter") or ""), digest])
    columns = ("member", "kind", "weight", "model", "adapter", "digests")
    return Table("Members of the blend", columns, rows, words=(1, 3, 4, 5))


def member_settings(facts: Facts, name: str) -> Table:
    """Returns all settings on which a member's scores depend, and what was found when its model was loaded."""
    values: dict[str, Any] = {**facts.manifest.members.get(name, {})}
    values |= {f"found: {key}": value for key, value in facts.manifest.models.get(name, {}).items()}
    values |= {f"link: {key}": value for key, value in facts.manifest.links.get(name, {}).items()}
    rows = [[key, "none" if value is None else str(value)] for key, value in values.items()]
    return Table(f"{name}: what its scores depend on", ("setting", "value"), rows, words=(1,))


def starts(facts: Facts) -> Table:
    """Returns the last starts."""
    rows = []
    for start in facts.manifest.starts[-MOST_STARTS:]:
        seconds = (start.get("seconds") or {}).get("total")
        scored = ", ".join(f"{name} {count:,}" for name, count in (start.get("scored") or {}).items())
        deaths = sum((start.get("deaths") or {}).values())
        code, error = start.get("exit"), start.get("error")
        ended = "done" if code == 0 else str(error or ("died" if code is None else f"exit code {code}"))
        took = "" if seconds is None else f"{seconds:,.1f}"
        place = f"{start.get('host', '')}, {start.get('lmsys_ray', '')}"
        rows.append([str(start.get("began")), ended, took, scored, f"{deaths:,}" if deaths else "", place])
    columns = ("began, UTC", "ended", "seconds", "rows scored", "deaths", "host, version")
    return Table("Starts of the run", columns, rows, words=(1, 3, 5))


def stages(facts: Facts) -> Table:
    """Returns the seconds of each stage of the last start that has them."""
    seconds: dict[str, float] = next(
        (start["seconds"] for start in reversed(facts.manifest.starts) if start.get("seconds")), {}
    )
    rows = [[stage, f"{value:,.1f}"] for stage, value in seconds.items()]
    return Table("Where the time of the last start went; passes run side by side", ("stage", "seconds"), rows)


def tokens(gathered: Gathered) -> Table:
    """Returns quantiles of the tokens of rows."""
    rows = [
        [name, *(f"{found.quantile(q):,}" for q in (0.5, 0.9, 0.99)), f"{found.largest():,}"]
        for name, found in gathered.tokens.items()
    ]
    return Table("Tokens of a row, in all orders that were scored", ("member", "median", "90 %", "99 %", "most"), rows)


def kept(gathered: Gathered) -> Table:
    """Returns how much of the texts members read."""
    rows = []
    for name, found in gathered.kept.items():
        for column, part in KEPT.items():
            share, mean = found.cut_texts[column] / max(found.rows, 1), found.sums[column] / max(found.rows, 1)
            rows.append([f"{name}, {part}", f"{share:.1%}", f"{mean:.1%}"])
    return Table("Texts that were cut, and the mean share that was read", ("text", "rows cut", "mean kept"), rows)


def means(gathered: Gathered) -> Table:
    """Returns mean probabilities and likeliest classes."""
    rows = []
    for name, found in gathered.spreads.items():
        count = max(found.rows, 1)
        shares = [f"{value / count:.1%}" for value in (*found.sums, *found.likeliest)]
        rows.append([name, *shares])
    columns = ("", "mean P(a)", "mean P(b)", "mean P(tie)", "likeliest a", "likeliest b", "likeliest tie")
    return Table("Probabilities of all scored rows", columns, rows)


def agreement(gathered: Gathered) -> Table:
    """Returns how far each two members agree."""
    rows = []
    for (first, second), found in gathered.agreements.items():
        correlation = found.correlation()
        shown = "none" if correlation is None else f"{correlation:.3f}"
        rows.append(
            [f"{first} and {second}", f"{found.same / found.rows:.1%}", shown, f"{found.divergence / found.rows:.4f}"]
        )
    columns = ("members", "same likeliest class", "correlation of P(a) - P(b)", "divergence, nats")
    return Table("Agreement of members", columns, rows)


def losses(gathered: Gathered, judged: dict[str, Judged]) -> Table:
    """Returns what the labels say of members and blend."""
    rows = [
        [name, interval(of.log_loss), f"{of.accuracy:.1%}", f"{of.brier_score:.4f}", f"{of.calibration_error:.3f}"]
        for name, of in judged.items()
        if name in (PRIOR, *gathered.predictions)
    ]
    columns = ("", "log loss (95 % interval)", "accuracy", "Brier score", "calibration error")
    return Table("Against the labels; the class prior is the labels' own shares", columns, rows)


def slices(gathered: Gathered) -> list[Table]:
    """Returns the log loss by source and by language."""
    assert gathered.labelled is not None
    names = [PRIOR, *gathered.members, *([IN_USE] if len(gathered.members) > 1 and gathered.blend else [])]
    found = []
    for kind, parts in gathered.labelled.slices(names).items():
        rows = [
            [part.name, f"{part.rows:,}", *(interval(part.losses[n], 3) if part.losses else "too few" for n in names)]
            for part in parts
        ]
        if rows:
            found.append(Table(f"Log loss by {kind} (95 % intervals)", (kind, "rows", *names), rows))
    return found


def orders(gathered: Gathered, judged: dict[str, Judged]) -> Table:
    """Returns how much members depend on which response stands first."""
    labelled = any(f"{name} {order}" in judged for name in gathered.orders for order in ORDERS)
    rows = []
    for name, found in gathered.orders.items():
        bias = found.bias.as_dict()
        shown = [f"{bias[key]:.1%}" for key in ("first", "second", "changed")]
        of = [judged.get(f"{name} {order}") for order in ORDERS]
        rows.append([name, *shown, *(interval(each.log_loss) if each else "" for each in of if labelled)])
    columns = ["member", "prefers the first", "prefers the second", "verdict changes"]
    columns += [f"log loss of {order} alone" for order in ORDERS] if labelled else []
    return Table("Rows scored in both orders", columns, rows)


def standings(facts: Facts) -> Table:
    """Returns the leaderboard."""
    rows = []
    for each in facts.standings[:MOST_MODELS]:
        ends = "" if each.lower is None or each.upper is None else f"{each.lower:.0f} to {each.upper:.0f}"
        rank = "" if each.rank is None else str(each.rank)
        strength = "none" if each.strength is None else f"{each.strength:.0f}"
        rows.append([each.model, rank, strength, ends, f"{each.battles:,}", f"{each.win_rate:.1%}"])
    columns = ("model", "rank", "strength", "95 % interval", "battles", "win rate")
    return Table("Models and their strengths", columns, rows)
