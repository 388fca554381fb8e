"""preferences.jsonl or .parquet: rows as a better and a worse response, for training, review or evaluation."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CELLS, CellForm, decode_cell
from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.exports.argilla import Argilla
from lmsys_ray.ensemble.exports.pairs import Pair, split
from lmsys_ray.ensemble.exports.rewardbench import RewardBench
from lmsys_ray.ensemble.exports.settings import PreferenceFormat, PreferenceSettings
from lmsys_ray.ensemble.exports.trl import Trl, TrlConversational
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.errors import RunError
from lmsys_ray.storage.files import AnyPath

_CARRIED = ("label", "model_a", "model_b", "language", "source")
_TIE = CLASSES.index("tie")
_BATCH = 4096
"""Records of a row group of Parquet; texts of so many are in memory."""


class Format(Protocol):
    """A form of preferences; `carried` are the columns of `lmsys_ray.data.carried` that the run has."""

    needs_label: bool
    """Whether the better response is the one that people chose, in place of the one that the blend prefers."""

    def schema(self, carried: Sequence[str]) -> pa.Schema:
        """Returns the columns of all records."""
        ...

    def record(self, pair: Pair) -> dict[str, Any] | str:
        """Returns the record of a pair, or why there is none in this form."""
        ...


FORMATS: dict[PreferenceFormat, Format] = {
    "trl": Trl(),
    "trl_conversational": TrlConversational(),
    "argilla": Argilla(),
    "rewardbench": RewardBench(),
}


@dataclass(frozen=True)
class _Choice:
    """Rows of a shard that become preferences."""

    places: np.ndarray
    better: np.ndarray
    """The class, 0 or 1, of the better response of each."""


class Preferences:
    """The consumer that writes preferences.

    `carried` are the columns of `lmsys_ray.data.carried` that the run has, and `cells` the form of its cells. Raises
    `RunError` for a format that needs labels where the run has none.
    """

    columns: Sequence[str] = (*CELLS, *_CARRIED)

    def __init__(
        self, files: OutputFiles, path: AnyPath, settings: PreferenceSettings, cells: CellForm, carried: Sequence[str]
    ) -> None:
        assert settings.format != "none", "no preferences are asked for"
        self.path = path
        self._format, self._settings, self._cells = FORMATS[settings.format], settings, cells
        self._carried = [name for name in _CARRIED if name in carried]
        if sentence := lack_of_labels(settings, carried, f"{path.parent} has"):
            raise RunError(sentence)
        aside = files.aside(path)
        schema = self._format.schema(carried)
        self._parquet = pq.ParquetWriter(aside, schema, compression="zstd") if settings.file == "parquet" else None
        self._lines = files.open(aside) if self._parquet is None else None
        self._waiting: list[dict[str, Any]] = []
        self._left_out: dict[str, int] = {}
        self._rows = self._labels = 0

    def add(self, joined: JoinedShard) -> None:
        """Adds the preferences of a shard."""
        if self._format.needs_label:
            self._labels += len(joined.table) - joined.table["label"].null_count
        for pair in self._pairs(joined, self._chosen(joined)):
            record = self._format.record(pair)
            if isinstance(record, str):
                self._leave_out(record)
                continue
            self._rows += 1
            if self._lines is not None:
                self._lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            else:
                self._waiting.append(record)
                if len(self._waiting) >= _BATCH:
                    self._flush()

    def finish(self) -> list[str]:
        """Writes the last records; raises `RunError` where the format needs labels and no row has one."""
        if not self._labels and (sentence := lack_of_labels(self._settings, [], f"{self.path.parent} has")):
            raise RunError(sentence)
        if self._lines is not None:
            self._lines.close()
        if self._parquet is not None:
            self._flush()
            self._parquet.close()
        left_out = [
            f"preferences left out: {count:,} of the kind: {reason}" for reason, count in self._left_out.items()
        ]
        return [*left_out, f"preferences: {self._rows:,} rows: {self.path}"]

    def _flush(self) -> None:
        assert self._parquet is not None
        if self._waiting:
            self._parquet.write_table(pa.Table.from_pylist(self._waiting, self._parquet.schema))
            self._waiting.clear()

    def _chosen(self, joined: JoinedShard) -> _Choice:
        a, b, tie = joined.blended.T
        if self._format.needs_label:
            label = joined.table["label"].fill_null(_TIE).to_numpy()
            places = np.flatnonzero(joined.scored & (label != _TIE))
            return _Choice(places, label[places])
        wanted = (np.abs(a - b) >= self._settings.margin) & (tie <= self._settings.most_tie) & (a != b)
        places = np.flatnonzero(joined.scored & wanted)
        return _Choice(places, (b > a)[places].astype(int))

    def _pairs(self, joined: JoinedShard, choice: _Choice) -> Iterator[Pair]:
        """Yields the chosen rows, without those that have no two sides."""
        chosen = joined.table.take(pa.array(choice.places))
        blended = joined.blended[choice.places].tolist()
        for row, better, probabilities in zip(_rows(chosen), choice.better.tolist(), blended, strict=True):
            prompt, a, b = (decode_cell(row[cell], self._cells) for cell in CELLS)
            sides = split(prompt, a, b)
            if isinstance(sides, str):
                self._leave_out(sides)
            else:
                yield Pair(
                    row["id"],
                    sides,
                    probabilities,
                    better,
                    {name: row[name] for name in self._carried if name in _CARRIED},
                )

    def _leave_out(self, reason: str) -> None:
        self._left_out[reason] = self._left_out.get(reason, 0) + 1


def lack_of_labels(settings: PreferenceSettings, carried: Sequence[str], place: str) -> str | None:
    """Returns why there can be no preferences of this format, where it needs labels that rows do not carry.

    `place` says who has none, with a verb.
    """
    if settings.format == "none" or not FORMATS[settings.format].needs_label or "label" in carried:
        return None
    return (
        f"outputs.preferences.format = {settings.format} needs rows with labels, of which {place} none; choose another "
        "format, or input whose records say what people preferred"
    )


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the rows of a table, of which a few at a time are Python objects."""
    for batch in table.to_batches(max_chunksize=256):
        yield from batch.to_pylist()
