"""Which rows a training learns from, and the directory that it works in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lmsys_ray.data.input_content import NOTED, check_content, input_content
from lmsys_ray.data.labelled_rows import LabelledRows
from lmsys_ray.data.readers import expand_inputs
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.storage.contents import content
from lmsys_ray.storage.errors import storage_errors
from lmsys_ray.storage.files import exists, path_of, read_bytes, remove
from lmsys_ray.storage.packaged import locate


class FoldSettings(Protocol):
    """The settings that say which rows are held out."""

    @property
    def fold(self) -> int: ...

    @property
    def folds(self) -> int: ...

    @property
    def seed(self) -> int: ...


class RunSettings(Protocol):
    """The settings of a training, and where it is written."""

    @property
    def input(self) -> list[str]: ...

    @property
    def output(self) -> str: ...

    @property
    def model(self) -> str: ...

    def model_dump_json(self, *, exclude: set[str]) -> str: ...


@dataclass(frozen=True)
class Split:
    """Which rows are trained on and which are held out, as indices into the labelled rows."""

    training: np.ndarray
    held_out: np.ndarray


def split_rows(rows: LabelledRows, settings: FoldSettings) -> Split:
    """Holds out the fold that the settings name, whole prompts at a time; fold -1 holds out nothing.

    Raises `UsageError` for a fold that does not exist, `RunError` where there are too few rows for the folds.
    """
    if settings.fold == -1:
        return Split(np.arange(len(rows.labels)), np.empty(0, np.int64))
    names, assigned = rows.folds(settings.folds, settings.seed)
    if settings.fold >= len(names):
        last = len(names) - 1
        raise UsageError(f"--fold: {settings.fold} is not one of the {len(names)} folds; give -1 to {last}")
    inside = assigned == settings.fold
    training = np.flatnonzero(rows.outside(inside))
    if not len(training):
        raise RunError(
            f"fold {names[settings.fold]} shares its prompts with every other row, so that none are left to train on"
        )
    # In random order, so that the first rows are a fair sample for validations.
    return Split(training, np.random.default_rng(settings.seed).permutation(np.flatnonzero(inside)))


def claim(settings: RunSettings) -> Path:
    """Returns the directory of a training in progress, a new one or one with the same settings.

    Raises `UsageError` where the output exists, or where the training in progress has other settings or input,
    `RunError` where the directory cannot be written.
    """
    output = Path(settings.output)
    directory = output.with_name(f"{output.name}.partial")
    with storage_errors(directory, "written"):
        if output.exists():
            raise UsageError(f"--output: {output} exists; name a new directory, or remove that one first")
        directory.mkdir(parents=True, exist_ok=True)
    asked = json.loads(settings.model_dump_json(exclude={"output", "workers", "device", "allow_unauthenticated"}))
    files = input_content(expand_inputs(settings.input))
    if exists(model := path_of(locate(settings.model))):
        asked["content of the model"] = content(model)["digest"]
    record = directory / "settings.json"
    with storage_errors(record, "written"):
        if not record.exists():
            record.write_text(json.dumps(asked | {NOTED: files}, indent=1))
    before = json.loads(read_bytes(record))
    check_content(before.pop(NOTED, None), files, directory)
    for key in before.keys() | asked.keys():
        if before.get(key) != asked.get(key):
            raise UsageError(
                f"--output: {directory} holds a training with {key} = {before.get(key)} where "
                f"{asked.get(key)} is asked now; continue with those settings, or remove it"
            )
    remove(directory / "failure.json")
    return directory
