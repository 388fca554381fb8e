"""Opens a run for a start, new or resumed, and closes it again."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import yaml

from lmsys_ray import __version__
from lmsys_ray.errors import DamagedManifestError
from lmsys_ray.ingest.resume import counts_hold
from lmsys_ray.run_directory.history import History
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import Digests, IngestFingerprint, Manifest
from lmsys_ray.scoring.extension import opened
from lmsys_ray.scoring.fingerprint import digests, fingerprint
from lmsys_ray.scoring.originals import Originals, find_originals, look_at_files
from lmsys_ray.scoring.rebuild import new_manifest, rebuild_manifest
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.start import Start


def open_run(start: Start, history: History) -> Manifest:
    """Writes and returns the manifest of a run that begins or resumes, with this start in its history.

    Raises `UsageError` where the directory holds another run.
    """
    with start.display.during("comparison with what the run was made from"):
        manifest, start.originals = _open(start.settings, start.run, start.display.say)
    start.shard_sizes = manifest.shard_sizes
    history.begin(manifest)
    start.run.write_manifest(manifest)
    settings = start.settings.model_dump(mode="json")
    start.run.write_settings(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return manifest


def close_run(start: Start, history: History, manifest: Manifest) -> None:
    """Writes the results of a start that succeeded into the manifest."""
    report = start.report
    history.end(report.results(), 0)
    usage = {name: asdict(used) for name, used in report.usage.items()}
    biases = {name: bias.as_dict() for name, bias in report.biases.items()}
    manifest.last_start = {**report.results(), "idle": report.idle, "usage": usage, "position_bias": biases}
    manifest.models = {**manifest.models, **report.models}
    manifest.links = {**manifest.links, **report.links}
    start.run.write_manifest(manifest)


def _read_as_before(before: Manifest, now: dict[str, Any]) -> None:
    """Lets a run of an earlier version, whose shards carry nothing beside the texts, go on like that."""
    if not before.ingest.reading and now["ingest"]["reading"].keys() <= {"carried"}:
        now["ingest"]["reading"] = {}


def _open(settings: Settings, run: RunDirectory, say: Callable[[str], None]) -> tuple[Manifest, Originals]:
    """Returns the manifest of a run and the files that it is made from; sets the binding of `run`."""
    looks = look_at_files(settings)
    now = fingerprint(settings)
    originals = find_originals(settings, now, looks)
    try:
        before = run.read_manifest()
    except DamagedManifestError as damage:
        before = rebuild_manifest(run, settings, now, damage, say)
    if before and not before.ingested and not run.tables():
        # Nothing was made yet, so that input and settings may change.
        before = new_manifest(now).model_copy(update={"starts": before.starts})
    if before:
        _read_as_before(before, now)
        before, now = opened(before, now, run, settings, originals, say)
    manifest = before or new_manifest(now)
    manifest.lmsys_ray, manifest.ingest = __version__, IngestFingerprint.model_validate(now["ingest"])
    if kept := manifest.digests:
        manifest.digests = Digests(ingest=kept.ingest, members={**digests(now).members, **kept.members})
    manifest.members = {**manifest.members, **now["members"]}
    run.binding = manifest.binding
    run.prepare()
    if manifest.ingested and not counts_hold(run, manifest.ingested):
        say(f"the counts of {run.path} are not those of its shards; they are counted again")
        manifest.ingested = None
    return manifest, originals
