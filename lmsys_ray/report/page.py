"""The page about a run: HTML with everything in it, which loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.durations import duration
from lmsys_ray.evaluation.evaluate import IN_USE
from lmsys_ray.evaluation.trained_rows import seen_in_training, warnings
from lmsys_ray.printable import printable
from lmsys_ray.report import tables
from lmsys_ray.report.advice import advice, verdict
from lmsys_ray.report.drawings import draw
from lmsys_ray.report.facts import Facts
from lmsys_ray.report.gather import MOST_TEXT, MOST_TURNS, Gathered
from lmsys_ray.report.labelled import Judged

_MOST_LOOKED_AT = 2_000
"""Rows that are compared with those that members were trained on."""


def page(facts: Facts, gathered: Gathered) -> str:
    """Returns the HTML of a run."""
    labelled = gathered.labelled
    judged = labelled.judged() if labelled else {}
    seen = seen_in_training(facts.run, facts.settings, facts.members, _MOST_LOOKED_AT) if judged else {}
    gain = labelled.gain(gathered.blend, IN_USE) if labelled and gathered.blend and not seen else None
    environment = Environment(
        loader=PackageLoader("lmsys_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    values = {
        "facts": facts,
        "gathered": gathered,
        "verdict": verdict(facts, judged),
        "flattered": warnings(seen),
        "key_figures": list(_key_figures(facts, gathered, judged)),
        "advice": advice(facts, gathered, judged, gain),
        "tables": tables,
        "judged": judged,
        "gain": gain,
        "drawings": draw(facts, gathered),
        "classes": CLASSES,
        "cells": CELLS,
        "most_text": MOST_TEXT,
        "most_turns": MOST_TURNS,
        "interval": tables.interval,
    }
    return environment.get_template("report.html").render(values)


def _key_figures(facts: Facts, gathered: Gathered, judged: Mapping[str, Judged]) -> Iterator[tuple[str, str]]:
    """Yields names and values."""
    counts = facts.manifest.ingested
    yield "rows", f"{counts.rows:,}" if counts else f"{gathered.rows:,} so far"
    yield "scored by all members", f"{gathered.scored:,}"
    yield "rejects", f"{facts.rejects.total():,}"
    if IN_USE in judged:
        yield "log loss of the blend", tables.interval(judged[IN_USE].log_loss)
        yield "labelled rows", f"{gathered.labelled.rows:,}" if gathered.labelled else "none"
    seconds = [
        float(start["seconds"]["total"]) for start in facts.manifest.starts if "total" in start.get("seconds", {})
    ]
    if seconds:
        yield "time of all starts", duration(sum(seconds))
    yield "starts", f"{len(facts.manifest.starts):,}"
