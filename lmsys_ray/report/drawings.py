"""The figures of each section of a report, each with the name of what it shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from lmsys_ray.evaluation.evaluate import IN_USE
from lmsys_ray.report.counts import BINS, Kept, Orders, Tokens
from lmsys_ray.report.facts import Facts
from lmsys_ray.report.figures.charts import histogram, rates, strengths
from lmsys_ray.report.figures.course import timeline
from lmsys_ray.report.figures.reliability import diagram
from lmsys_ray.report.figures.square import square
from lmsys_ray.report.figures.svg import steps
from lmsys_ray.report.figures.triangle import triangle
from lmsys_ray.report.gather import Gathered
from lmsys_ray.report.timeline import Course, courses

_MOST = 12
"""Members with figures of their own; tables have all of them."""

_MOST_MODELS = 25

Named = list[tuple[str, Markup]]


@dataclass(frozen=True)
class Drawings:
    """The figures by section; those of starts with what they are drawn from."""

    timelines: list[tuple[Course, Markup]] = field(default_factory=list)
    rates: list[tuple[Course, Markup]] = field(default_factory=list)
    tokens: Named = field(default_factory=list)
    kept: Named = field(default_factory=list)
    triangles: Named = field(default_factory=list)
    reliability: Named = field(default_factory=list)
    orders: Named = field(default_factory=list)
    strengths: Named = field(default_factory=list)


def draw(facts: Facts, gathered: Gathered) -> Drawings:
    """Returns the figures of a run; a section without anything to show has none."""
    drawn = gathered.predictions[:_MOST]
    if len(gathered.members) == 1 and gathered.blend:
        drawn = [IN_USE]  # which is the member, but for the temperature
    drawn = [name for name in drawn if name in gathered.spreads]
    labelled, found = gathered.labelled, courses(facts)
    placed = list(enumerate(drawn))
    board = [each for each in facts.standings if each.strength is not None][:_MOST_MODELS]
    return Drawings(
        timelines=[(course, timeline(f"timeline{n}", course)) for n, course in enumerate(found)],
        rates=[(course, _rates(f"rates{n}", course)) for n, course in enumerate(found) if course.rates],
        tokens=[(name, _tokens(f"tokens{n}", name, of)) for n, (name, of) in enumerate(gathered.tokens.items())],
        kept=[(name, _kept(f"kept{n}", name, of)) for n, (name, of) in enumerate(gathered.kept.items()) if of.cut],
        triangles=[(name, triangle(f"triangle{n}", name, gathered.spreads[name])) for n, name in placed],
        reliability=[(name, diagram(f"reliability{n}", name, labelled.reliability[name])) for n, name in placed]
        if labelled
        else [],
        orders=[(name, _orders(f"orders{n}", name, of)) for n, (name, of) in enumerate(gathered.orders.items())],
        strengths=[("", strengths("strengths", board))] if board else [],
    )


def _rates(key: str, course: Course) -> Markup:
    return rates(key, f"Rows a second in the start of {course.began}", course.seconds, course.rates)


def _tokens(key: str, name: str, found: Tokens) -> Markup:
    """Returns the histogram of the tokens of rows in some 30 bins of round width."""
    largest = found.largest()
    ticks = steps(float(largest), 30)
    width = max(1, round(ticks[1] - ticks[0]))
    bins = largest // width + 1
    counts = np.bincount(np.arange(largest + 1) // width, found.counts[: largest + 1], minlength=bins).astype(int)
    note = f"Median {found.quantile(0.5):,}, 99 % up to {found.quantile(0.99):,}, most {largest:,}."
    edges = [float(width * place) for place in range(bins + 1)]
    return histogram(key, f"Tokens of a row for {name}", edges, counts.tolist(), "tokens", note)


def _kept(key: str, name: str, found: Kept) -> Markup:
    title = f"{name}: rows that were cut, by the share kept of the text that lost most"
    edges = [place / BINS * 100 for place in range(BINS + 1)]
    note = f"{found.cut:,} of {found.rows:,} rows were cut."
    return histogram(key, title, edges, found.least.tolist(), "% kept", note)


def _orders(key: str, name: str, found: Orders) -> Markup:
    title = f"{name}: P(a) - P(b) in both orders"
    described = f"{found.bias}. Without bias all rows lie on the line."
    return square(key, title, described, found.grid, "A stands first", "B stands first")
