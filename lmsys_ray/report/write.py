"""Writes report.html into a run directory."""

from __future__ import annotations

from lmsys_ray.report.facts import read_facts
from lmsys_ray.report.gather import gather
from lmsys_ray.report.page import page
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage.files import AnyPath, write_bytes


def write_report(run: RunDirectory, texts: bool = False) -> AnyPath:
    """Writes the page about a run, finished or not, whole or not at all, and returns its path.

    With `texts`, or the run's setting `report.texts`, it shows the beginnings of the conversations of doubtful rows.
    Raises `UsageError` for what is no run directory, `DamagedError` for a damaged file of one, and `RunError` where the
    page cannot be written.
    """
    facts = read_facts(run)
    write_bytes(run.report, page(facts, gather(facts, texts or facts.settings.report.texts)).encode())
    return run.report
