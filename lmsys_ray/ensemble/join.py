"""Joins the members' scores of a run with its rows, shard by shard, and blends them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmsys_ray import CLASSES
from lmsys_ray.ensemble.blend import aligned, with_prior
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.links import Link
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.tables import prefetched

_ALWAYS = ("row", "id", "rejected")


@dataclass(frozen=True)
class JoinedShard:
    """A shard, what each member of the blend made of it, and the blend."""

    number: int
    table: pa.Table
    """`row`, `id`, `rejected` and the columns that were asked for, of all rows.

    A row that any member could not score is `rejected` too."""
    accepted: np.ndarray
    """Which rows ingest accepted, so that members have scores of them, or reasons: bool [rows]."""
    scores: Mapping[str, pa.Table]
    """Each member's scores of the `accepted` rows, as the run directory has them."""
    kept: Mapping[str, pa.Table]
    """The same of the rows that the blend is of."""
    probabilities: Mapping[str, np.ndarray]
    """Each member's probabilities [rows, 3]; NaN in the rows that it has none of."""
    blended: np.ndarray
    """The blend [rows, 3]; the class prior in rejected rows."""
    unscorable: list[tuple[int, str, str]] = field(default_factory=list)
    """Accepted rows that members could not score: row in the run, member, reason."""

    @property
    def scored(self) -> np.ndarray:
        """Which rows the blend is of, rather than the class prior: bool [rows]."""
        return ~_flags(self.table["rejected"])


def join_shards(
    run: RunDirectory,
    blend: Blend,
    links: Mapping[str, Link],
    prior: tuple[float, float, float],
    shards: int | Sequence[int],
    columns: Sequence[str] = (),
) -> Iterator[JoinedShard]:
    """Yields each of `shards`, their numbers or how many there are, with these `columns` of its table, blended.

    `links` has those of members that score each response by itself. A row that could not be scored has the
    probabilities `prior`. Raises `DamagedError` for a file that is damaged, or has other rows than its shard.
    """

    def read(number: int) -> tuple[pa.Table, dict[str, pa.Table]]:
        shard = run.read_shard(number, [*_ALWAYS, *columns])
        return shard, {name: run.read_scores(name, number) for name in blend.weights}

    numbers = range(shards) if isinstance(shards, int) else shards
    for number, (shard, scores) in zip(numbers, prefetched(read, numbers), strict=True):
        probabilities = {
            name: _of_all_rows(shard, table, str(run.score(name, number)), links.get(name))
            for name, table in scores.items()
        }
        table, kept, unscorable = set_failed_aside(shard, scores)
        scored = ~_flags(table["rejected"])
        blended = blend.of({name: _picked(values, scored) for name, values in probabilities.items()})
        yield JoinedShard(
            number=number,
            table=table,
            accepted=~_flags(shard["rejected"]),
            scores=scores,
            kept=kept,
            probabilities=probabilities,
            blended=with_prior(table, blended, prior),
            unscorable=unscorable,
        )


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


def _of_all_rows(shard: pa.Table, scores: pa.Table, place: str, link: Link | None) -> np.ndarray:
    """Returns a member's probabilities [rows, 3], NaN where it has none; raises as `aligned` does."""
    marked, kept, _ = set_failed_aside(shard, {"": scores})
    found = aligned(marked, kept[""], place, link)
    if len(found) == shard.num_rows:
        return found
    spread = np.full((shard.num_rows, len(CLASSES)), np.nan)
    spread[~_flags(marked["rejected"])] = found
    return spread


def _picked(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    return values if which.all() else values[which]


def _flags(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
