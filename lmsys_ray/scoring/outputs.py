"""The last step of a run: one pass over its joined shards, which becomes the submission and all other outputs."""

from collections.abc import Sequence
from dataclasses import asdict

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.ensemble.consumers import Consumer, OutputFiles, replaced_together
from lmsys_ray.ensemble.exports.doubtful import Doubtful
from lmsys_ray.ensemble.exports.preferences import Preferences
from lmsys_ray.ensemble.exports.scores import ScoreTable
from lmsys_ray.ensemble.join import JoinedShard, join_shards, read_ids
from lmsys_ray.ensemble.leaderboard.output import LeaderboardOutput
from lmsys_ray.ensemble.position_bias import PositionBias
from lmsys_ray.ensemble.rejects import unscorable
from lmsys_ray.ensemble.submission import Submission
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.links import links_of, said
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.start import Start
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import AnyPath


def write_outputs(start: Start) -> None:
    """Writes the outputs that are asked for, removes others, and lists the rows that members could not score.

    Raises `RunError` for more rejects than the settings allow, before any output is replaced.
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
    carried = run.carried() if shards else []
    with replaced_together() as files:
        consumers = _consumers(run, settings, report, files, carried)
        wanted = {name for consumer in consumers for name in consumer.columns}
        columns = [name for name in (*CELLS, *carried) if name in wanted]
        for joined in join_shards(run, blend, links, settings.prior, shards, columns):
            _note(joined, report)
            for consumer in consumers:
                with storage_errors(consumer.path, "written"):
                    consumer.add(joined)
        run.write_unscorable(report.unscorable)
        start.check_rejects()
        report.written = []
        for consumer in consumers:
            with storage_errors(consumer.path, "written"):
                report.written += consumer.finish()
        for path in _possible(run):
            if path not in [consumer.path for consumer in consumers]:
                files.remove(path)


def _consumers(
    run: RunDirectory, settings: Settings, report: Report, files: OutputFiles, carried: Sequence[str]
) -> list[Consumer]:
    """Returns the outputs that are asked for, the submission first: it is there once all of them are."""
    asked, counts = settings.outputs, report.ingested
    ids = read_ids(run, counts.shards)
    consumers: list[Consumer] = [Submission(files, run.submission, ids, counts.lines, asked.escape_formulas)]
    if asked.scores:
        consumers.append(ScoreTable(files, run.score_table, run.ingest_rejects()))
    if asked.preferences.format != "none":
        path = run.preferences(asked.preferences.file)
        consumers.append(Preferences(files, path, asked.preferences, settings.cells, carried))
    if asked.doubtful:
        consumers.append(Doubtful(files, run.doubtful, asked.doubtful, asked.doubtful_texts, settings.cells))
    consumers.append(LeaderboardOutput(files, run.path, asked.leaderboard, settings.cells, asked.escape_formulas))
    return consumers


def _possible(run: RunDirectory) -> list[AnyPath]:
    """Returns the outputs that an earlier start may have written."""
    return [run.score_table, run.preferences("jsonl"), run.preferences("parquet"), run.doubtful]


def _note(joined: JoinedShard, report: Report) -> None:
    """Adds a shard's rows that members could not score, and how much members that scored both orders depend on them."""
    report.unscorable += unscorable(joined.table, joined.unscorable)
    for name, scores in joined.kept.items():
        if "a_swapped" in scores.column_names:
            report.biases.setdefault(name, PositionBias()).add(scores)
