"""Reads labelled conversations for training, and divides them into folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lmsys_ray import CLASSES
from lmsys_ray.data.conversations import CELLS, CellForm
from lmsys_ray.data.folds import grouped_folds, prompt_groups
from lmsys_ray.data.labels import COLUMNS, chosen_class
from lmsys_ray.data.readers import expand_inputs, read_rows
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
    """Reads conversations and their one-hot labels from files of any of the input formats.

    `cells` is the form of the raw cells, as in scoring. Raises `UsageError` where a file or a column is missing,
    `RunError` for labels that are not one-hot or all of one class, and where no row is usable.
    """
    usable, labels, rejected = [], [], 0
    values: list[str] | None = None if fold_column is None else []
    for file in expand_inputs(inputs):
        for table in read_rows(file, cells, extra=COLUMNS if fold_column is None else [*COLUMNS, fold_column]):
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


def _classes(table: pa.Table, file: str) -> np.ndarray:
    columns = (table[name].to_pylist() for name in ("number", "id", *COLUMNS))
    chosen = [
        chosen_class(values, f"{file}, row {number} (id {identity})")
        for number, identity, *values in zip(*columns, strict=True)
    ]
    return np.array(chosen, np.int64)
