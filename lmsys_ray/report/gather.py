"""One pass over the joined shards of a run, finished or not: counts and sums for all figures, some megabytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.ensemble.blend import normalise
from lmsys_ray.ensemble.blend_methods import Blend
from lmsys_ray.ensemble.exports.doubtful import DoubtfulRows
from lmsys_ray.ensemble.join import JoinedShard, join_shards
from lmsys_ray.evaluation.evaluate import IN_USE
from lmsys_ray.report.counts import KEPT, Agreement, Kept, Orders, Spread, Tokens
from lmsys_ray.report.facts import Facts
from lmsys_ray.report.labelled import Labelled
from lmsys_ray.report.prompt_groups import prompt_hashes
from lmsys_ray.run_directory.score_checks import probabilities_of
from lmsys_ray.scoring.links import links_of

DOUBTFUL = 8
"""Doubtful rows of each kind."""

MOST_TEXT = 1_500
"""Characters of a turn that are shown."""

MOST_TURNS = 20
"""Turns of a cell that are shown."""

MOST_COMPARED = 12
"""Members that are compared with each other, the first."""

PROPERTIES = ("source", "language")
"""Of rows, by which log losses are told apart."""

ORDERS = {"A/B": "_plain", "B/A": "_swapped"}


@dataclass
class Gathered:
    """What the rows say that all members have scored which have begun."""

    members: list[str]
    """With any scores."""
    blend: Blend | None
    """The blend in use; None while a member of it has no scores at all."""
    rows: int = 0
    scored: int = 0
    """Rows that all these members could score."""
    spreads: dict[str, Spread] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    agreements: dict[tuple[str, str], Agreement] = field(default_factory=dict)
    orders: dict[str, Orders] = field(default_factory=dict)
    labelled: Labelled | None = None
    doubtful: list[dict[str, Any]] = field(default_factory=list)

    @property
    def predictions(self) -> list[str]:
        """The names of the members and, where there is one, of the blend."""
        return [*self.members, *([IN_USE] if self.blend else [])]


def gather(facts: Facts, texts: bool) -> Gathered:
    """Reads the shards that all members which have begun have scored; raises `DamagedError` for a damaged one."""
    settings, in_use = facts.settings, facts.settings.blending()
    begun = [name for name in facts.members if facts.scored_at[name]]
    blend = in_use if begun == facts.members else None
    gathered = Gathered(begun, blend)
    numbers = [n for n in range(facts.shards) if all(n in facts.scored_at[name] for name in begun)] if begun else []
    if not numbers:
        return gathered
    mixed = blend or Blend(normalise({name: in_use.weights[name] for name in begun}))
    carried = [name for name in facts.run.read_shard(numbers[0]).column_names if name in ("label", *PROPERTIES)]
    doubtful = DoubtfulRows(DOUBTFUL, texts, settings.cells, MOST_TEXT)
    columns = {*carried, *(["prompt"] if "label" in carried else [])}
    if blend:
        columns |= {"model_a", "model_b"} & set(facts.run.carried())
        columns |= {*CELLS} if texts else set()
    rows = (
        facts.manifest.ingested.lines if facts.manifest.ingested else facts.manifest.shard_sizes.first_row(facts.shards)
    )
    links = links_of(facts.run, settings, begun, numbers, rows)
    for joined in join_shards(facts.run, mixed, links, settings.prior, numbers, sorted(columns)):
        _add(gathered, joined, rows)
        if blend:
            doubtful.add(joined)
    gathered.doubtful = list(doubtful.records())
    return gathered


def _add(gathered: Gathered, joined: JoinedShard, rows: int) -> None:
    scored = joined.scored
    gathered.rows += joined.table.num_rows
    gathered.scored += int(scored.sum())
    if not scored.any():
        return
    predictions = {name: joined.probabilities[name][scored] for name in gathered.members}
    if gathered.blend:
        predictions[IN_USE] = joined.blended[scored]
    for name, probabilities in predictions.items():
        gathered.spreads.setdefault(name, Spread()).add(probabilities)
    for first, second in combinations(gathered.members[:MOST_COMPARED], 2):
        gathered.agreements.setdefault((first, second), Agreement()).add(predictions[first], predictions[second])
    for name, scores in joined.kept.items():
        _add_columns(gathered, name, scores)
    if "label" in joined.table.column_names:
        _add_labels(gathered, joined, predictions, rows)


def _add_columns(gathered: Gathered, name: str, scores: pa.Table) -> None:
    """Adds what the scores of some kinds of members hold beside probabilities."""
    columns = set(scores.column_names)
    if "tokens" in columns:
        gathered.tokens.setdefault(name, Tokens()).add(scores["tokens"].to_numpy())
    if columns >= KEPT.keys():
        gathered.kept.setdefault(name, Kept()).add(scores)
    if "a_swapped" in columns:
        gathered.orders.setdefault(name, Orders()).add(scores)


def _add_labels(gathered: Gathered, joined: JoinedShard, predictions: Mapping[str, np.ndarray], rows: int) -> None:
    table = joined.table.filter(pa.array(joined.scored))
    known = table["label"].is_valid().to_numpy(zero_copy_only=False)
    if not known.any():
        return
    table = table.filter(pa.array(known))
    judged = {name: probabilities[known] for name, probabilities in predictions.items()}
    for name, scores in joined.kept.items():
        if "a_swapped" in scores.column_names:
            judged |= {f"{name} {order}": _of_order(scores, end)[known] for order, end in ORDERS.items()}
    kinds = [name for name in PROPERTIES if name in table.column_names]
    if gathered.labelled is None:
        gathered.labelled = Labelled(list(judged), kinds, rows)
    labels = table["label"].to_numpy().astype(np.int64)
    properties = {name: table[name].to_pylist() for name in kinds}
    gathered.labelled.add(judged, labels, prompt_hashes(table["prompt"]), properties)


def _of_order(scores: pa.Table, end: str) -> np.ndarray:
    values = probabilities_of(scores, end)
    return np.asarray(values / values.sum(axis=1, keepdims=True))
