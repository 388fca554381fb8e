"""Rebuilds a manifest that is lost or damaged, if the seals of the run's files show that they belong to this run."""

from collections.abc import Callable
from typing import Any

from lmsys_ray.errors import DamagedManifestError, RunError
from lmsys_ray.run_directory.layout import RunDirectory, Table
from lmsys_ray.run_directory.manifest import Manifest
from lmsys_ray.scoring.fingerprint import digests


def new_manifest(now: dict[str, Any]) -> Manifest:
    """Returns the manifest of a run that begins with the fingerprint `now`."""
    return Manifest.model_validate({**now, "digests": digests(now)})


def rebuild_manifest(
    run: RunDirectory, now: dict[str, Any], damage: DamagedManifestError, say: Callable[[str], None]
) -> Manifest:
    """Returns the manifest of `run` as made from the fingerprint `now`, and says so.

    It has no counts, which ingest finds again after the last whole shard. Raises `RunError` where the seal of the first
    whole shard, or of a member's first whole scores, is of another run or names none.
    """
    manifest = new_manifest(now)
    found = RunDirectory(run.path, manifest.binding)
    what = str(damage).rpartition(";")[0]
    tables = found.tables()
    for member in (None, *manifest.binding.members):
        if not _belongs(found, [table for table in tables if table.member == member]):
            made = "its shards were" if member is None else f"the scores of members.{member} were"
            raise RunError(
                f"{what}, and {made} not made from the input and settings of now, or by a version that did not write "
                "down from what; continue with those it was made from, put a copy of the manifest back, or choose "
                "another --output"
            )
    kept = f"is made again; {len(tables)} files of shards and scores are kept" if tables else "is started anew"
    say(f"{what}: it {kept}")
    return manifest


def _belongs(run: RunDirectory, tables: list[Table]) -> bool:
    """Returns whether the first of `tables` that is whole belongs to `run`; damaged ones are made again anyway."""
    for table in tables:
        label = run.label_in(table)
        if label is not None:
            binding = run.binding
            number = table.number
            return label == (binding.shard(number) if table.member is None else binding.score(table.member, number))
    return True
