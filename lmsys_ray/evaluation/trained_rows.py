"""Warns of members that are judged on rows that they were trained on."""

from collections.abc import Iterable

import numpy as np

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.trained_rows import read_digests, row_digests
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.packaged import local


def seen_in_training(
    run: RunDirectory, settings: Settings, members: Iterable[str], most: int | None = None
) -> dict[str, tuple[int, int]]:
    """Returns for each member that was trained on rows of the run: how many, of how many rows that were looked at.

    That are all, or with `most` the first shards that hold so many. A member tells where digests of its training rows
    lie beside its weights, as trainings of this package write them.
    """
    digests = {name: _trained_on(settings, name) for name in members}
    known = {name: found for name, found in digests.items() if len(found)}
    manifest = run.read_manifest()
    if not known or not manifest or not manifest.ingested:
        return {}
    bound, seen, total = RunDirectory(run.path, manifest.binding), dict.fromkeys(known, 0), 0
    columns = ["rejected", *CELLS]
    for shard in prefetched(lambda number: bound.read_shard(number, columns), range(manifest.ingested.shards)):
        rows = shard.filter(np.logical_not(shard["rejected"].to_numpy()))
        found = row_digests(rows, settings.cells)
        total += len(found)
        for name, trained in known.items():
            seen[name] += int(np.isin(found, trained).sum())
        if most is not None and total >= most:
            break
    return {name: (count, total) for name, count in seen.items() if count}


def warnings(seen: dict[str, tuple[int, int]]) -> list[str]:
    """Returns a sentence for each member that was trained on rows of the run."""
    return [
        f"{name} was trained on {count:,} of {total:,} rows of this run, so that its figures flatter, and those of "
        "the blend too; judge it on rows that it has not seen"
        for name, (count, total) in seen.items()
    ]


def _trained_on(settings: Settings, name: str) -> np.ndarray:
    named = settings.members[name].named_artifacts().values()
    found = [read_digests(local(artifact)) for artifact in named]
    return np.concatenate(found) if found else np.empty(0, np.uint64)
