"""Rebuilds a manifest that is lost or damaged, if the seals of the run's files show that they belong to this run."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lmsys_ray.errors import DamagedManifestError, RunError
from lmsys_ray.run_directory.layout import RunDirectory, Table
from lmsys_ray.run_directory.manifest import Digests, Manifest, Span
from lmsys_ray.scoring.extension import as_begun
from lmsys_ray.scoring.fingerprint import digests, extension_digest
from lmsys_ray.scoring.settings import Settings


def new_manifest(now: dict[str, Any]) -> Manifest:
    """Returns the manifest of a run that begins with the fingerprint `now`."""
    return Manifest.model_validate({**now, "digests": digests(now)})


def rebuild_manifest(
    run: RunDirectory,
    settings: Settings,
    now: dict[str, Any],
    damage: DamagedManifestError,
    say: Callable[[str], None],
) -> Manifest:
    """Returns the manifest of `run` as made from the fingerprint `now`, and says so.

    It has no counts, which ingest finds again after the last whole shard. Raises `RunError` where the seal of the first
    whole shard, or of a member's first whole scores, is of another run or names none; of a run that was extended, the
    first of each extension.
    """
    what = str(damage).rpartition(";")[0]
    spans = run.read_spans()
    manifest = _extended(spans, settings, now) if spans else new_manifest(now)
    if manifest is None:
        raise _refused(what, "its shards were")
    found = RunDirectory(run.path, manifest.binding)
    tables = found.tables()
    for member in (None, *manifest.binding.members):
        of_member = [table for table in tables if table.member == member]
        if not all(_belongs(found, part) for part in _by_span(of_member, manifest)):
            raise _refused(what, "its shards were" if member is None else f"the scores of members.{member} were")
    kept = f"is made again; {len(tables)} files of shards and scores are kept" if tables else "is started anew"
    say(f"{what}: it {kept}")
    return manifest


def _refused(what: str, made: str) -> RunError:
    return RunError(
        f"{what}, and {made} not made from the input and settings of now, or by a version that did not write down from "
        "what; continue with those it was made from, put a copy of the manifest back, or choose another --output"
    )


def _extended(spans: Sequence[Span], settings: Settings, now: dict[str, Any]) -> Manifest | None:
    """Returns the manifest of an extended run; None where `now` is not what it was last extended to."""
    now = as_begun(now, settings, spans[-1].shard_rows, [span.files for span in spans])
    before, last = spans[-2:]
    if extension_digest(before.digest, last.shards, last.lines, now) != last.digest:
        return None
    manifest = new_manifest(now)
    manifest.digests = Digests(ingest=spans[0].digest, members=digests(now).members)
    manifest.spans = [*spans]
    return manifest


def _by_span(tables: list[Table], manifest: Manifest) -> Iterator[list[Table]]:
    """Yields the tables of each span of a run; of one that was never extended, all."""
    ends = [*(cut.shard for cut in manifest.shard_sizes.cuts[1:]), sys.maxsize]
    first = 0
    for end in ends:
        yield [table for table in tables if first <= table.number < end]
        first = end


def _belongs(run: RunDirectory, tables: list[Table]) -> bool:
    """Returns whether the first of `tables` that is whole belongs to `run`; damaged ones are made again anyway."""
    for table in tables:
        label = run.label_in(table)
        if label is not None:
            binding = run.binding
            number = table.number
            return label == (binding.shard(number) if table.member is None else binding.score(table.member, number))
    return True
