"""Joins the members' scores of a run, shard by shard, into one blend."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray.ensemble.blend import aligned, with_prior
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.links import Link
from lmsys_ray.ensemble.position_bias import PositionBias
from lmsys_ray.ensemble.rejects import unscorable
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched

BlendedShard: TypeAlias = tuple[pa.ChunkedArray, np.ndarray]
"""The ids of some rows and their probabilities [rows, 3]."""


def blend_shards(
    run: RunDirectory,
    blend: Blend,
    links: Mapping[str, Link],
    prior: tuple[float, float, float],
    shards: int,
    failed: list[dict[str, Any]],
    biases: dict[str, PositionBias],
) -> Iterator[BlendedShard]:
    """Yields each shard with the members of `blend` blended.

    `links` has those of members that score each response by itself. A row that could not be scored has the
    probabilities `prior`. Rows that members could not score are added to `failed`, as in `rejects.jsonl`; to `biases`
    how members that scored both orders depend on the order. Raises `DamagedError` for a file that is damaged, or has
    other rows than its shard.
    """

    def read(number: int) -> tuple[pa.Table, dict[str, pa.Table]]:
        shard = run.read_shard(number, ["row", "id", "rejected"])
        return shard, {name: run.read_scores(name, number) for name in blend.weights}

    numbers = range(shards)
    for number, (shard, members) in zip(numbers, prefetched(read, numbers), strict=True):
        shard, members, not_scored = set_failed_aside(shard, members)
        failed += unscorable(shard, not_scored)
        for name, scores in members.items():
            if "a_swapped" in scores.column_names:
                biases.setdefault(name, PositionBias()).add(scores)
        probabilities = {
            name: aligned(shard, scores, str(run.score(name, number)), links.get(name))
            for name, scores in members.items()
        }
        yield shard["id"], with_prior(shard, blend.of(probabilities), prior)


def read_ids(run: RunDirectory, shards: int) -> Iterator[pa.ChunkedArray]:
    """Yields the ids of each shard."""
    for shard in prefetched(lambda number: run.read_shard(number, ["id"]), range(shards)):
        yield shard["id"]


def set_failed_aside(
    shard: pa.Table, members: Mapping[str, pa.Table]
) -> tuple[pa.Table, dict[str, pa.Table], list[tuple[int, str, str]]]:
    """Marks the rows that any member could not score as rejected, and removes them from all scores.

    Returns the shard, the members' scores, and (row, member, reason) of what was removed.
    """
    named = {name: scores for name, scores in members.items() if "reason" in scores.column_names}
    if not named:
        return shard, dict(members), []
    failed = []
    for name, scores in named.items():
        bad = scores.filter(scores["reason"].is_valid()).select(["row", "reason"])
        failed += [(row["row"], name, row["reason"]) for row in bad.to_pylist()]
    rows = pa.array(sorted({row for row, _, _ in failed}), pa.int64())
    rejected = pc.or_(shard["rejected"], pc.is_in(shard["row"], rows))
    shard = shard.set_column(shard.schema.get_field_index("rejected"), "rejected", rejected)
    kept = {name: scores.filter(pc.invert(pc.is_in(scores["row"], rows))) for name, scores in members.items()}
    kept = {name: scores.drop_columns("reason") if name in named else scores for name, scores in kept.items()}
    return shard, kept, failed
