"""The first step of a run: cutting the rows of the input into shards."""

from lmsys_ray.cluster.excluded_nodes import find_excluded
from lmsys_ray.cluster.node_watch import NodeWatch
from lmsys_ray.cluster.read_files import read_files
from lmsys_ray.cluster.read_guard import Guard
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.data.schemas.reading import Reading
from lmsys_ray.errors import ReplacedError
from lmsys_ray.fault_tolerance.watchdog import Watchdog
from lmsys_ray.ingest.ingest import ingest
from lmsys_ray.ingest.resume import remove_shards_from
from lmsys_ray.run_directory.manifest import Ingested, Manifest
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.scoring.start import Start
from lmsys_ray.storage.unchanged import Original


def ingest_input(start: Start, manifest: Manifest, cluster: Resources, watchdog: Watchdog) -> Ingested:
    """Ingests what is missing and writes the counts into the manifest.

    Raises `ReplacedError` where a file is not the one in the manifest, after removing the shards with its rows.
    """
    settings, originals = start.settings, start.originals.input
    files = [file.path for file in manifest.ingest.input]
    nodes = find_excluded(start.run, start.lock.token, files, ["CPU"], cluster.grows, start.say_once)
    reading = Reading.from_dict(manifest.ingest.reading)
    guard = Guard(originals, nodes.shared, watchdog.ledger, settings.max_deaths)

    def ingest_files() -> Ingested:
        progress = start.display.begin("ingest", settings.limit)

        def on_rows(rows: int) -> None:
            progress.add(rows)
            start.display.show(progress)
            watchdog.progress()

        ingested = ingest(
            read_files(
                files,
                settings.cells,
                settings.limit,
                guard,
                nodes.ids,
                settings.largest_cell,
                reading,
                manifest.ingest.names,
            ),
            start.run,
            manifest.shard_sizes,
            fail_on_reject=settings.on_bad_row == "fail",
            on_rows=on_rows,
            files=files,
            carried=reading.carried,
        )
        start.display.finish(progress)
        return ingested

    try:
        with start.timed("ingest"), NodeWatch("ingest", "CPU", 1, start.display.say):
            ingested = nodes.retry_excluding(ingest_files)
            list(prefetched(Original.check, originals))
    except ReplacedError as error:
        # Those of before an extension stay: what they were made from was compared with what is there now.
        first = manifest.spans[-1].shards if manifest.spans else 0
        remove_shards_from(start.run, files, error.place, first)
        raise
    manifest.ingested = ingested
    start.report.rows_ingested = ingested.rows
    start.run.write_manifest(manifest)
    return ingested
