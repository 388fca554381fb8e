"""scores.parquet: every row of a run with the scores of each member, the blend, and why it was rejected."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmsys_ray import CLASSES
from lmsys_ray.data.carried import CARRIED
from lmsys_ray.ensemble.consumers import OutputFiles
from lmsys_ray.ensemble.join import JoinedShard
from lmsys_ray.errors import DamagedError
from lmsys_ray.storage.files import AnyPath

_GROUP_ROWS = 1 << 16
"""Rows of a row group, at least, but for the last."""

_FIRST, _LAST = ("row", "id"), (*CLASSES, "reason")


class ScoreTable:
    """The consumer that writes `scores.parquet`.

    Columns of members are named `MEMBER/COLUMN`; a name of a member has no `/`. `rejects` are those of ingest, in the
    order of the input, with `id` and `reason`.
    """

    columns: Sequence[str] = CARRIED.names

    def __init__(self, files: OutputFiles, path: AnyPath, rejects: Iterator[Mapping[str, Any]]) -> None:
        self.path = path
        self._file = _GrowingParquet(files.aside(path))
        self._rejects = rejects
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, joined: JoinedShard) -> None:
        """Adds the rows of a shard."""
        table = self._rows_of(joined)
        self._waiting.append(table)
        self._rows += table.num_rows
        if sum(part.num_rows for part in self._waiting) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> list[str]:
        """Writes the last rows."""
        if self._waiting or not self._rows:
            self._waiting = self._waiting or [_EMPTY]
            self._flush()
        self._file.close()
        return [f"scores: {self._rows:,} rows: {self.path}"]

    def _flush(self) -> None:
        self._file.write(pa.concat_tables(self._waiting, promote_options="permissive"))
        self._waiting.clear()

    def _rows_of(self, joined: JoinedShard) -> pa.Table:
        shard = joined.table
        columns = {name: shard[name] for name in shard.column_names if name in (*_FIRST, *CARRIED.names)}
        for name, scores in joined.scores.items():
            columns |= {f"{name}/{key}": column for key, column in _of_member(joined, name, scores).items()}
        for place, name in enumerate(CLASSES):
            columns[name] = pa.array(joined.blended[:, place])
        columns["reason"] = pa.array(self._reasons(joined), pa.string())
        return pa.table(columns)

    def _reasons(self, joined: JoinedShard) -> list[str | None]:
        reasons: list[str | None] = [None] * joined.table.num_rows
        for place in np.flatnonzero(~joined.accepted):
            reasons[place] = self._reason_of_ingest(joined.table["id"][place].as_py())
        first = joined.table["row"][0].as_py() if joined.unscorable else 0
        for row, member, reason in joined.unscorable:
            before = reasons[row - first]
            reasons[row - first] = f"{before}; {member}: {reason}" if before else f"{member}: {reason}"
        return reasons

    def _reason_of_ingest(self, identity: str) -> str:
        """Returns why ingest rejected the next row that it did; rejects without a line of their own are passed over."""
        for reject in self._rejects:
            if reject["id"] == identity:
                return str(reject["reason"])
        raise DamagedError(
            f"the rejects of {self.path.parent} lack id {identity}; a start of score.py makes them again"
        )


_EMPTY = pa.table(
    {
        "row": pa.array([], pa.int64()),
        "id": pa.array([], pa.string()),
        **{name: pa.array([], pa.float64()) for name in CLASSES},
        "reason": pa.array([], pa.string()),
    }
)


def _of_member(joined: JoinedShard, name: str, scores: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Returns a member's columns: probabilities (float32), then what else its scores hold, null where it has none."""
    none = np.isnan(joined.probabilities[name][:, 0])
    found = {
        label: pa.array(joined.probabilities[name][:, place].astype(np.float32), mask=none)
        for place, label in enumerate(CLASSES)
    }
    rest = [column for column in scores.column_names if column not in ("row", "reason", *CLASSES)]
    if rest and not joined.accepted.all():
        places = pa.array(np.cumsum(joined.accepted) - 1, pa.int64(), mask=~joined.accepted)
        scores = scores.select(rest).take(places)
    return {**found, **{column: scores[column] for column in rest}}


class _GrowingParquet:
    """A Parquet file whose later row groups may have columns that the earlier ones lack, which are then null there.

    That is rare: a member's scores of one run have the same columns, unless two versions made them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Writes a row group."""
        table = table.replace_schema_metadata(None)
        if self._schema is None:
            self._schema = _in_order(table.schema)
            self._writer = _writer(self._path, self._schema)
        elif (wider := _unified(self._schema, table.schema)) != self._schema:
            self._widen(wider)
        assert self._writer is not None
        self._writer.write_table(_as(table, self._schema), row_group_size=table.num_rows or None)

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.close()

    def _widen(self, schema: pa.Schema) -> None:
        """Writes the file anew with more columns, row group by row group."""
        self.close()
        wider = self._path.with_name(f".wider{self._path.name}.tmp")
        self._schema, self._writer = schema, _writer(wider, schema)
        with pq.ParquetFile(self._path) as before:
            for number in range(before.num_row_groups):
                group = before.read_row_group(number)
                self._writer.write_table(_as(group, schema), row_group_size=group.num_rows or None)
        os.replace(wider, self._path)  # the writer goes on in the file under its new name


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd")


def _unified(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    return _in_order(pa.unify_schemas([first, second], promote_options="permissive"))


def _in_order(schema: pa.Schema) -> pa.Schema:
    """Returns the columns in the order: the row's own, those of each member, the blend."""
    own = [name for name in schema.names if name in (*_FIRST, *CARRIED.names)]
    members = list(dict.fromkeys(name.partition("/")[0] for name in schema.names if "/" in name))
    of_members = [name for member in members for name in schema.names if name.startswith(f"{member}/")]
    return pa.schema([schema.field(name) for name in (*own, *of_members, *_LAST)])


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns a table with the columns of `schema`, null where it lacks them."""
    return pa.table(
        [
            table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in schema
        ],
        schema=schema,
    )
