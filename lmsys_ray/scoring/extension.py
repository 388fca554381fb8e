"""Extends a run: to a larger limit, to further files of its input, or to rows at the end of the last one.

The shards of before and their scores stay; the last of them ends where it ended, and what follows is another span
(`lmsys_ray.run_directory.manifest.Span`), with labels and a size of shards of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmsys_ray.data.readers import read_rows
from lmsys_ray.data.readers.grown import ends_a_line, first_changed, may_grow
from lmsys_ray.data.schemas.reading import Reading, row_names_as_begun
from lmsys_ray.errors import UsageError
from lmsys_ray.ingest.resume import counts_hold, end_of_shards
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.manifest import IngestFingerprint, InputFile, Manifest, Span
from lmsys_ray.scoring.fingerprint import check_same_run, contents, extension_digest
from lmsys_ray.scoring.originals import Originals
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.contents import begins_as
from lmsys_ray.storage.files import path_of, remove
from lmsys_ray.words import counted


def as_begun(now: Mapping[str, Any], settings: Settings, shard_rows: int, counts: list[int]) -> dict[str, Any]:
    """Returns the fingerprint `now` with what a run keeps: its `shard_rows` where they are `auto`, and names of files.

    `counts` says how many files the input had at its beginning and at each extension.
    """
    ingest = dict(now["ingest"])
    if settings.shard_rows == "auto":
        ingest["shard_rows"] = shard_rows
    if ingest["names"]:
        ingest["names"] = row_names_as_begun([file["path"] for file in ingest["input"]], counts)
    return {**now, "ingest": ingest}


def opened(
    before: Manifest,
    now: dict[str, Any],
    run: RunDirectory,
    settings: Settings,
    originals: Originals,
    say: Callable[[str], None],
) -> tuple[Manifest, dict[str, Any]]:
    """Returns the manifest of a run, extended where `now` is an extension of it, and the fingerprint to go on with.

    An earlier extension of which nothing was scored is given up for another one, or for none: its rows may have been
    bad ones. Raises `UsageError` where `now` is neither the run's fingerprint nor an extension.
    """
    try:
        return _continued(before, now, run, settings, originals, say)
    except UsageError as refused:
        earlier, first = _without_unscored(before, run)
        if earlier is None:
            raise
        try:
            found = _continued(earlier, now, run, settings, originals, say)
        except UsageError:
            raise refused from None
    say(f"{run.path}: nothing was scored of what it was last extended to, which is given up")
    for number in run.listed_shards():
        if number >= first:
            remove(run.shard(number))
    return found


def _without_unscored(before: Manifest, run: RunDirectory) -> tuple[Manifest | None, int]:
    """Returns a run as it was before its last extension, and where that begins; None where there are scores of it."""
    if not before.spans:
        return None, 0
    last, first = before.spans[-2], before.spans[-1].shards
    if any(table.member is not None and table.number >= first for table in RunDirectory(run.path).tables()):
        return None, 0
    held, spans = before.ingest, before.spans[:-1]
    ingest = {
        "input": [*held.input[: last.files - 1], last.last_file],
        "limit": last.limit,
        "shard_rows": last.shard_rows,
        "names": held.names[: last.files],
        "partitions": held.partitions[: last.files],
    }
    update = {"ingest": held.model_copy(update=ingest), "spans": spans[1:] and spans, "ingested": None}
    return before.model_copy(update=update), first


def _continued(
    before: Manifest,
    now: dict[str, Any],
    run: RunDirectory,
    settings: Settings,
    originals: Originals,
    say: Callable[[str], None],
) -> tuple[Manifest, dict[str, Any]]:
    held = before.ingest
    counts = [*(span.files for span in before.spans), len(held.input)]
    kept = as_begun(now, settings, held.shard_rows, counts)
    files = [file.model_dump() for file in held.input]
    old, new = contents(files), contents(now["ingest"]["input"])
    further = _further(old, new)
    more = held.limit is not None and (settings.limit is None or settings.limit > held.limit)
    if further is None or not (more or (held.limit == settings.limit and old != new)):
        check_same_run(before.fingerprint(), kept, run.path)
        return before, kept
    same = {"limit": held.limit, "input": files, "names": kept["ingest"]["names"][: len(held.names)]}
    named = kept["ingest"]["partitions"][: len(files)]
    same["partitions"] = named if any(named) else []
    check_same_run(before.fingerprint(), {**kept, "ingest": {**kept["ingest"], **same}}, run.path)
    grown = len(old) - 1 if new[: len(old)] != old else None
    if grown is not None:
        with originals.input[grown].unchanged():
            _check_grown(held.input[grown], grown, kept, run, settings, held.limit)
    now = as_begun(now, settings, now["ingest"]["shard_rows"], counts)
    extended = _extended(before, now, RunDirectory(run.path, before.binding), old == new)
    grew = [] if grown is None else [f"{now['ingest']['input'][grown]['path']} has grown"]
    grew += [f"its input has {counted(further, 'further file')}"] if further else []
    say(f"{_held(before, run)}; {' and '.join(grew) + '; ' if grew else ''}going on to {_to(settings.limit)}")
    return extended, now


def _further(old: list[tuple[int, str]], new: list[tuple[int, str]]) -> int | None:
    """Returns how many files come after those of before, of which the last may have grown; None for other changes."""
    grown = len(new) >= len(old) and new[len(old) - 1][0] > old[-1][0]
    if new[: len(old)] == old or (grown and new[: len(old) - 1] == old[:-1]):
        return len(new) - len(old)
    return None


def _check_grown(
    held: InputFile, place: int, now: Mapping[str, Any], run: RunDirectory, settings: Settings, limit: int | None
) -> None:
    """Raises `UsageError` unless a file of the input holds the rows of before and further ones at its end."""
    name = now["ingest"]["input"][place]["path"]
    path = path_of(name)
    instead = f"put back what {run.path} was made from, add rows in a file of their own, or choose another --output"
    if not may_grow(name) or not isinstance(path, Path):
        raise UsageError(
            f"input: {name} is not what it was; only a local file of CSV or JSON Lines that is not compressed may have "
            f"further rows at its end; {instead}"
        )
    if not begins_as(path, held.bytes, held.digest):
        raise UsageError(f"input: {name} does not begin with the {held.bytes:,} bytes that it was; {instead}")
    if not ends_a_line(path, held.bytes):
        raise UsageError(f"input: {name} goes on within the line in which it ended before; {instead}")
    names = now["ingest"]["names"]

    def rows(file: str) -> Iterator[pa.Table]:
        return read_rows(
            file,
            settings.cells,
            limit=limit,
            largest_cell=settings.largest_cell,
            reading=Reading.from_dict(now["ingest"]["reading"]),
            name=names[place] if names else "",
        )

    row = first_changed(path, held.bytes, rows)
    if row is not None:
        raise UsageError(f"input: with what was added to {name}, its row {row} reads otherwise than before; {instead}")


def _extended(before: Manifest, now: dict[str, Any], run: RunDirectory, same_input: bool) -> Manifest:
    """Returns the manifest of an extended run; what was ingested of it ends where its last shard does."""
    held, spans, limit, counts = before.ingest, list(before.spans), now["ingest"]["limit"], before.ingested
    reached_end = same_input and held.limit is not None and counts is not None and counts.rows < held.limit
    has_all = reached_end or (limit is not None and counts is not None and counts.rows >= limit)
    end = (counts.shards, counts.lines) if counts and counts_hold(run, counts) else end_of_shards(run)
    if not spans:
        digest = before.digests.ingest if before.digests else ""
        spans = [_span((0, 0), held, digest)]
    end = max(end, (spans[-1].shards, spans[-1].lines))
    if end[0] == spans[-1].shards and len(spans) > 1:
        spans.pop()  # it came to no shard
    digest = extension_digest(spans[-1].digest, *end, now) if before.digests else ""
    spans.append(_span(end, IngestFingerprint.model_validate(now["ingest"]), digest))
    return before.model_copy(update={"spans": spans, "ingested": counts if has_all else None})


def _span(end: tuple[int, int], ingest: IngestFingerprint, digest: str) -> Span:
    """Returns the span that begins behind so many shards and rows."""
    return Span(
        shards=end[0],
        lines=end[1],
        shard_rows=ingest.shard_rows,
        limit=ingest.limit,
        files=len(ingest.input),
        last_file=ingest.input[-1],
        digest=digest,
    )


def _held(before: Manifest, run: RunDirectory) -> str:
    """Returns what a run held, in words."""
    limit, counts = before.ingest.limit, before.ingested
    verb = "held" if counts else "was begun with"
    if limit is not None and (counts is None or counts.rows >= limit):
        return f"{run.path} {verb} the first {counted(limit, 'row')}"
    return f"{run.path} {verb} all {f'{counts.rows:,} ' if counts else ''}rows"


def _to(limit: int | None) -> str:
    return "all" if limit is None else f"the first {limit:,}"
