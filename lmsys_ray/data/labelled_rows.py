"""Reads labelled conversations for training, and divides them into folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.data.folds import grouped_folds, prompt_groups
from lmsys_ray.data.labels import COLUMNS, chosen_class
from lmsys_ray.data.readers import check_columns, expand_inputs, head, read_rows
from lmsys_ray.data.schemas.reading import row_names
from lmsys_ray.data.schemas.recognise import recognise
from lmsys_ray.data.schemas.schema import COMMON
from lmsys_ray.errors import RunError, UsageError


@dataclass(frozen=True)
class LabelledRows:
    """The usable rows of the labelled files, in their order."""

    ids: list[str]
    conversations: pa.Table
    """The columns of `lmsys_ray.members.protocol.CONVERSATIONS`; `row` counts from 0."""
    labels: np.ndarray
    """The class of each row, int64 [rows], as an index into `lmsys_ray.CLASSES`."""
    groups: np.ndarray
    """A number for each distinct prompt, int64 [rows]."""
    rejected: int
    """Rows that were left out because a cell was missing or could not be decoded."""
    fold_values: list[str] | None = None
    """The value of each row in the column that defines the folds, if there is one."""

    def folds(self, count: int, seed: int) -> tuple[list[str], np.ndarray]:
        """Returns the names of the folds and the fold of each row, int64 [rows].

        They are the values of the column, or `count` folds by prompt. Raises `UsageError` or `RunError` where the rows
        do not allow that.
        """
        if self.fold_values is None:
            if count < 2:
                raise UsageError(f"--folds: {count} is too few; give 2 or more")
            return [str(number) for number in range(count)], grouped_folds(self.labels, self.groups, count, seed)
        names, assigned = np.unique(self.fold_values, return_inverse=True)
        if len(names) < 2:
            raise RunError(f"fold_column: all rows have the value {names[0]!r}; name a column with two or more")
        return [str(name) for name in names], assigned

    def outside(self, inside: np.ndarray) -> np.ndarray:
        """Returns which rows share no prompt with those `inside`, both bool [rows]; a column may split prompts."""
        return ~np.isin(self.groups, self.groups[inside])


def read_labelled(inputs: Sequence[str], fold_column: str | None = None, cells: CellForm = "auto") -> LabelledRows:
    """Reads conversations and their labels from files of any format and schema.

    `cells` is the form of the raw cells, as in scoring. Raises `UsageError` where a file or a column is missing, or the
    files have no labels, `RunError` for rows without a label or labels all of one class, and where no row is usable.
    """
    usable, labels, rejected = [], [], 0
    values: list[str] | None = None if fold_column is None else []
    for file, table in _tables(expand_inputs(inputs), fold_column, cells):
        if table.num_rows:
            kept = table.filter(table["reason"].is_null())
            rejected += table.num_rows - kept.num_rows
            usable.append(kept.select(["id", *CELLS]))
            labels.append(_classes(kept, file))
            if values is not None:
                values += [str(value or "") for value in kept[fold_column].to_pylist()]
    rows = pa.concat_tables(usable) if usable else None
    if rows is None or rows.num_rows == 0:
        raise RunError(f"{', '.join(inputs)}: no row can be used of {rejected}; see that the cells are lists of turns")
    classes = np.concatenate(labels)
    if len(found := np.unique(classes)) == 1:
        raise RunError(f"all {len(classes)} labels are {CLASSES[found[0]]}; there is nothing to learn from one class")
    conversations = rows.select(["id", *CELLS]).add_column(0, "row", pa.array(np.arange(rows.num_rows)))
    groups = prompt_groups(rows["prompt"].to_pylist(), cells)
    return LabelledRows(rows["id"].to_pylist(), conversations, classes, groups, rejected, values)


def _tables(files: Sequence[str], fold_column: str | None, cells: CellForm) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of files that are read alike, with the columns of labels and of folds."""
    first = head(files[0])
    reading = recognise(first).reading
    folds = [] if fold_column is None else [fold_column]
    if reading.schema == "contest":
        for file in files:
            for table in read_rows(file, cells, extra=[*COLUMNS, *folds], reading=replace(reading, carried=())):
                yield file, table
        return
    if "label" not in reading.carried:
        columns = " or ".join(reading.of.carries.get("label", ()))
        raise UsageError(f"--input: {files[0]} has no labels; those of {reading.of.title} are in {columns}")
    if absent := [name for name in folds if name not in reading.carried]:
        raise UsageError(
            f"fold_column: {files[0]} has no {absent[0]} that travels with its rows; "
            f"accepted: {', '.join(name for name in reading.carried if name in COMMON)}"
        )
    for file, name in zip(files, row_names(files), strict=True):
        check_columns(file, reading=reading)
        for table in read_rows(file, cells, reading=reading, name=name):
            yield file, table


def _classes(table: pa.Table, file: str) -> np.ndarray:
    if "label" in table.column_names:
        return _whole_labels(table, file)
    columns = (table[name].to_pylist() for name in ("number", "id", *COLUMNS))
    chosen = [
        chosen_class(values, f"{file}, row {number} (id {identity})")
        for number, identity, *values in zip(*columns, strict=True)
    ]
    return np.array(chosen, np.int64)


def _whole_labels(table: pa.Table, file: str) -> np.ndarray:
    for row in table.filter(table["label"].is_null()).slice(0, 1).select(["number", "id"]).to_pylist():
        raise RunError(f"{file}, row {row['number']} (id {row['id']}): it has no label; leave such rows out")
    return table["label"].to_numpy().astype(np.int64)
