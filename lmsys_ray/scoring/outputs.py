"""The last step of a run: joining and blending the members' scores into the submission."""

from collections.abc import Iterator
from dataclasses import asdict

from lmsys_ray.ensemble.join import BlendedShard, blend_shards, read_ids
from lmsys_ray.ensemble.submission import write_submission
from lmsys_ray.scoring.links import links_of, said
from lmsys_ray.scoring.start import Start


def write_outputs(start: Start) -> None:
    """Writes the submission, and the rows that members could not score into the list of rejects.

    Raises `RunError` for more rejects than the settings allow, before the submission is replaced.
    """
    run, settings, report = start.run, start.settings, start.report
    shards = report.ingested.shards
    report.unscorable, report.biases = [], {}
    blend = settings.blending()
    links = links_of(run, settings, list(blend.weights), shards, report.ingested.rows)
    for name, link in links.items():
        report.links[name] = asdict(link)
        if sentence := said(name, settings, link):
            start.say_once(sentence)
    parts = blend_shards(run, blend, links, settings.prior, shards, report.unscorable, report.biases)
    escape = settings.outputs.escape_formulas
    write_submission(run.submission, _with_rejects(start, parts), read_ids(run, shards), report.ingested.lines, escape)


def _with_rejects(start: Start, parts: Iterator[BlendedShard]) -> Iterator[BlendedShard]:
    """Yields the parts of the submission, then writes and checks the rejects, which are known by then."""
    yield from parts
    start.run.write_unscorable(start.report.unscorable)
    start.check_rejects()
