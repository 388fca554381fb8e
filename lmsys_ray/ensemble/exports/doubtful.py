"""doubtful.jsonl: the rows that a person should look at first, of a few kinds."""

import heapq
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.exports.pairs import figure
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.storage.files import AnyPath

KINDS = ("disagreement", "uncertainty", "label")
"""Why a row is doubtful: its members disagree, the blend is unsure, or it contradicts what people chose."""

_CARRIED = ("label", "model_a", "model_b", "language", "source")


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy of probabilities [..., 3] in nats [...]; 0 log 0 is 0."""
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1))
    return -(probabilities * logarithms).sum(axis=-1)


def disagreement(members: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the Jensen-Shannon divergence of members' probabilities [rows, 3] in nats [rows], all of equal weight.

    0 where all say the same, up to log 3 (Lin 1991).
    """
    stacked = np.stack(list(members))
    stacked = stacked / stacked.sum(axis=-1, keepdims=True)
    return np.maximum(entropy(stacked.mean(axis=0)) - entropy(stacked).mean(axis=0), 0)


class _Top:
    """The rows of the largest values, of equal ones the earliest; at most `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int]] = []
        """(value, negative row): the least doubtful, and of equal ones the latest, comes first."""

    def add(self, values: np.ndarray, rows: np.ndarray) -> bool:
        """Adds rows, which come after those that were added before, without NaN; returns whether there are any new."""
        better = np.flatnonzero(values > self._least())
        for place in better:
            kept = (float(values[place]), -int(rows[place]))
            if len(self._heap) < self._size:
                heapq.heappush(self._heap, kept)
            else:
                heapq.heappushpop(self._heap, kept)
        return len(better) > 0

    def _least(self) -> float:
        """Returns what a later row must exceed."""
        return self._heap[0][0] if len(self._heap) == self._size else -np.inf

    def rows(self) -> list[int]:
        """Returns the rows, the largest value first."""
        return [-before for _, before in sorted(self._heap, reverse=True)]

    def __iter__(self) -> Iterator[int]:
        """Yields the rows in no order."""
        return (-before for _, before in self._heap)


class DoubtfulRows:
    """Collects from shards of each of `KINDS` the `size` most doubtful rows.

    `cells` is the form of the run's cells, of which `texts` says whether they are kept too: all of a conversation, or
    the first `most` characters of each turn.
    """

    def __init__(self, size: int, texts: bool, cells: CellForm, most: int | None = None) -> None:
        self._texts, self._cells, self._most = texts, cells, most
        self._tops = {kind: _Top(size) for kind in KINDS}
        self._records: dict[int, dict[str, Any]] = {}

    @property
    def columns(self) -> Sequence[str]:
        """The columns that `add` reads."""
        return (*_CARRIED, *(CELLS if self._texts else ()))

    def add(self, joined: JoinedShard) -> None:
        """Keeps the rows of a shard that are more doubtful than those that were kept so far."""
        values = _values(joined)
        rows = joined.table["row"].to_numpy()
        scored = joined.scored
        new = [top.add(np.where(scored, values[kind], np.nan), rows) for kind, top in self._tops.items()]
        if not any(new):
            return
        wanted = {row for top in self._tops.values() for row in top}
        self._records = {row: record for row, record in self._records.items() if row in wanted}
        first = int(rows[0])
        places = [row - first for row in sorted(wanted) if row >= first]
        self._records |= {first + place: self._record(joined, values, place) for place in places}

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the rows that were kept, each with all its reasons, by the best rank that a row has, then by row."""
        ranks = {kind: {row: rank for rank, row in enumerate(top.rows(), 1)} for kind, top in self._tops.items()}
        reasons = {row: {kind: rank[row] for kind, rank in ranks.items() if row in rank} for row in self._records}
        for row in sorted(self._records, key=lambda row: (min(reasons[row].values()), row)):
            record = self._records[row]
            yield {"id": record["id"], "row": row, "reasons": reasons[row], **record}

    def _record(self, joined: JoinedShard, values: dict[str, np.ndarray], place: int) -> dict[str, Any]:
        row = joined.table.slice(place, 1)
        carried = {name: row[name][0].as_py() for name in _CARRIED if name in row.column_names}
        label = carried.pop("label", None)
        record = {
            "id": row["id"][0].as_py(),
            "disagreement": _number(values["disagreement"][place]),
            "entropy": _number(values["uncertainty"][place]),
            "label": None if label is None else CLASSES[label],
            "p_label": _number(1 - values["label"][place]),
            "blend": _by_class(joined.blended[place]),
            "members": {name: _by_class(found[place]) for name, found in joined.probabilities.items()},
            **carried,
        }
        if self._texts:
            turns = {name: decode_cell(row[name][0].as_py(), self._cells) for name in CELLS}
            record |= {name: [turn[: self._most] for turn in found] for name, found in turns.items()}
        return record


class Doubtful:
    """The consumer that writes `doubtful.jsonl`, a line for each of `DoubtfulRows`."""

    def __init__(self, files: OutputFiles, path: AnyPath, size: int, texts: bool, cells: CellForm) -> None:
        self.path = path
        self._file = files.open(files.aside(path))
        self._rows = DoubtfulRows(size, texts, cells)

    @property
    def columns(self) -> Sequence[str]:
        """The columns that `add` reads."""
        return self._rows.columns

    def add(self, joined: JoinedShard) -> None:
        """Adds a shard."""
        self._rows.add(joined)

    def finish(self) -> list[str]:
        """Writes the rows that were kept."""
        count = 0
        for record in self._rows.records():
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
        self._file.close()
        return [f"doubtful: {count:,} rows: {self.path}"]


def _values(joined: JoinedShard) -> dict[str, np.ndarray]:
    """Returns how doubtful each row is [rows], by kind; NaN where that can't be said."""
    none = np.full(len(joined.blended), np.nan)
    members = list(joined.probabilities.values())
    label = none
    if "label" in joined.table.column_names:
        place = joined.table["label"].cast(pa.int64()).fill_null(-1).to_numpy()
        chosen = joined.blended[np.arange(len(place)), place]
        label = np.where(place < 0, np.nan, 1 - chosen)
    return {
        "disagreement": disagreement(members) if len(members) > 1 else none,
        "uncertainty": entropy(joined.blended),
        "label": label,
    }


def _by_class(probabilities: np.ndarray) -> dict[str, float]:
    return dict(zip(CLASSES, (figure(float(value)) for value in probabilities), strict=True))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else figure(float(value))
