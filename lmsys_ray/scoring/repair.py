"""Removes damaged files of a run, so that they are made again."""

from lmsys_ray.errors import DamagedError, RunError
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.run_directory.published_rejects import has_all_rejects
from lmsys_ray.scoring.start import Start


def repair(start: Start, manifest: Manifest, damage: DamagedError) -> None:
    """Removes damaged shards and scores; ingest and the passes then make them again.

    Raises `RunError` where the run directory itself is gone.
    """
    run, say = start.run, start.display.say
    if not run.read_manifest():
        raise RunError(f"{run.path} is gone; put it back and start the same command again") from None
    start.lock.check()
    say(f"{damage}; all shards are checked")
    damaged, counts = run.remove_damaged(), manifest.ingested
    if counts and (run.missing_conversations(counts.shards) or not has_all_rejects(run, counts.rejects)):
        manifest.ingested = None
        run.write_manifest(manifest)
    say(f"{len(damaged)} damaged files are made again")
