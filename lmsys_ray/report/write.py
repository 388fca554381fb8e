"""Writes report.html, by default into the run directory."""

from __future__ import annotations

from lmsys_ray.report.facts import read_facts
from lmsys_ray.report.gather import gather
from lmsys_ray.report.page import page
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.storage.files import AnyPath, make_folder, write_bytes


def write_report(run: RunDirectory, texts: bool = False, file: AnyPath | None = None) -> AnyPath:
    """Writes the page about a run, finished or not, whole or not at all, and returns its path.

    It goes into the run directory, unless `file` names another place.
    With `texts`, or the run's setting `report.texts`, it shows the beginnings of the conversations of doubtful rows.
    Raises `UsageError` for what is no run directory, `DamagedError` for a damaged file of one, and `RunError` where the
    page cannot be written.
    """
    facts = read_facts(run)
    written = page(facts, gather(facts, texts or facts.settings.report.texts)).encode()
    file = file or run.report
    make_folder(file.parent)
    write_bytes(file, written)
    return file
