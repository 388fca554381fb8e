"""The main job: ingest, a pass for each member, join, outputs. Work that an earlier start did is not repeated."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lmsys_ray.cluster.connect import ray_cluster
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.ensemble.blend import normalisation_line
from lmsys_ray.errors import DamagedError
from lmsys_ray.fault_tolerance.death_limit import raising_in_main_thread
from lmsys_ray.fault_tolerance.watchdog import Watchdog
from lmsys_ray.run_directory.history import History
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import RunLock
from lmsys_ray.run_directory.manifest import Ingested, Manifest
from lmsys_ray.run_directory.published_rejects import restore_rejects
from lmsys_ray.scoring.ingestion import ingest_input
from lmsys_ray.scoring.open_run import close_run, open_run
from lmsys_ray.scoring.outputs import write_outputs
from lmsys_ray.scoring.passes import score_members
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.repair import repair
from lmsys_ray.scoring.report import Report
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.start import Start
from lmsys_ray.storage.files import path_of


def score(settings: Settings, display: Display) -> Report:
    """Completes the run directory `settings.output` and writes its submission.

    Raises `RunError` with one sentence where the job cannot continue. What was done by then is kept, and the same
    command resumes from there.
    """
    run = RunDirectory(path_of(settings.output).absolute())
    with display.during("lock of the run directory"), RunLock(run) as lock:
        start = Start(settings, run, lock, display)
        history = History(run)
        with start.timed("total"):
            if line := normalisation_line({name: member.weight for name, member in settings.members.items()}):
                display.say(line)
            manifest = open_run(start, history)
            with history.recording_failure(start.report.results):
                try:
                    _complete(start, manifest)
                except DamagedError as damage:
                    repair(start, manifest, damage)
                    _complete(start, manifest)
        close_run(start, history, manifest)
        return start.report


def _complete(start: Start, manifest: Manifest) -> None:
    """Does what is missing, and always the join, which takes seconds."""
    if manifest.ingested and restore_rejects(start.run, manifest.ingested.rejects):
        start.display.say(f"{start.run.rejects} was gone or damaged; it is made again")
    if not manifest.ingested or any(start.missing(manifest.ingested).values()):
        with _cluster(start) as (cluster, watchdog):
            start.report.ingested = manifest.ingested or ingest_input(start, manifest, cluster, watchdog)
            start.check_rejects()
            score_members(start, start.missing(start.report.ingested), cluster, watchdog)
        start.run.remove_unfinished_tables()
    start.report.ingested = manifest.ingested or Ingested()
    start.check_rejects()
    with start.timed("join"):
        write_outputs(start)


@contextmanager
def _cluster(start: Start) -> Iterator[tuple[Resources, Watchdog]]:
    """Connects to the cluster and starts the watchdog of its workers."""
    settings, say = start.settings, start.display.say
    with ExitStack() as stack:
        with start.timed("start of Ray"):
            cluster = stack.enter_context(ray_cluster(settings.allow_unauthenticated, say))
        give_up = stack.enter_context(raising_in_main_thread())
        watchdog = Watchdog(settings.shard_seconds, say, start.note_death, settings.max_deaths, give_up)
        yield cluster, stack.enter_context(watchdog)
