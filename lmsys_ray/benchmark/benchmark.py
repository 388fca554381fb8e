"""Runs the sides of a benchmark in turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lmsys_ray.benchmark.features_side import save_vocabularies
from lmsys_ray.benchmark.models import save_checkpoint
from lmsys_ray.benchmark.rows import Rows, like_the_whole
from lmsys_ray.benchmark.settings import BenchmarkSettings
from lmsys_ray.benchmark.shape import Shape
from lmsys_ray.benchmark.sides import FEATURES, JOB, REFERENCE, peak_of
from lmsys_ray.benchmark.task import Task
from lmsys_ray.benchmark.worker import SideFailed, Turn
from lmsys_ray.benchmark.workers import Workers
from lmsys_ray.conversations import CELLS
from lmsys_ray.errors import UsageError
from lmsys_ray.members.llama.encode import LlamaEncoder
from lmsys_ray.readers import expand_inputs, read_rows

Say = Callable[[str], None]

MOST_ROWS_READ = 10_000
"""Of the input; they give the distribution of lengths."""

FEATURE_ROWS = 2_000
"""Of these, how many the features' sides compute features of: two of the notebook's batches."""


@dataclass
class Measurements:
    """The turns of every side, round by round."""

    task: Task
    shape: Shape
    rows: Rows
    turns: dict[str, list[Turn]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reference: np.ndarray | None = None
    """Probabilities of the first rows, each alone in float32 [checked rows, 3]."""


def benchmark(settings: BenchmarkSettings, say: Say) -> Measurements:
    """Runs every side once a round, the peaks of their number formats between them, and the features' sides after.

    A side that fails is left out from then on and its last words are kept. Raises `UsageError` for an input or a model
    that cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="lmsys-ray-benchmark-") as folder:
        say("preparing the rows and the model")
        task = prepare(settings, folder)
        found = Measurements(task, task.shape(), task.rows())
        say(_described(found.rows, task))
        names = settings.chosen_sides(torch.cuda.is_available())
        peaks = dict.fromkeys(peak_of(name, torch.cuda.is_available()) for name in names)
        with Workers(task, settings.vllm_python, keep=not torch.cuda.is_available()) as workers:
            _measure([REFERENCE], 1, workers, found, say)
            _measure([*peaks, *names], settings.repeats, workers, found, say)
        if settings.features:
            with Workers(task, settings.vllm_python, keep=True) as workers:
                _measure(list(FEATURES), settings.repeats, workers, found, say)
        if settings.job_rows:
            with Workers(task, settings.vllm_python, keep=not torch.cuda.is_available(), warm_up=False) as workers:
                _measure(list(JOB), settings.repeats, workers, found, say)
    if REFERENCE in found.turns:
        found.reference = np.array(found.turns.pop(REFERENCE)[0].answer["probabilities"])
    return found


def prepare(settings: BenchmarkSettings, folder: str) -> Task:
    """Writes what the sides need into `folder`: the checkpoint, the rows, and the task itself."""
    member = settings.member()
    conversations = _conversations(settings.input)
    if (settings.job_rows or 0) > conversations.num_rows:
        raise UsageError(f"--job-rows: {settings.job_rows} is more than the {conversations.num_rows} rows of the input")
    encoded = LlamaEncoder(member).encode(conversations)
    ids = encoded["input_ids"].combine_chunks()
    rows = Rows(ids.flatten().to_numpy(), ids.offsets.to_numpy())
    cuda = torch.cuda.is_available()
    rows = rows.take(like_the_whole(rows.lengths, settings.row_count(cuda)))
    columns = save_checkpoint(member, settings.model_shape, Path(folder) / "checkpoint")
    task = Task(
        folder=folder,
        max_length=member.max_length,
        batch_rows=settings.batch_rows(cuda),
        threads=settings.threads or len(os.sched_getaffinity(0)),
        clock=settings.clock,
        batch_tokens=settings.slots(cuda),
        columns=columns,
        checked=settings.checked,
    )
    rows.save(task.rows_file)
    if settings.features:
        some = conversations.slice(0, FEATURE_ROWS)
        pq.write_table(some, task.conversations_file)
        texts = [text for cell in ("response_a", "response_b") for text in some[cell].to_pylist()]
        save_vocabularies(texts, task.vocabularies_file)
    if settings.job_rows:
        from lmsys_ray.benchmark.job_side import save_job

        save_job(conversations.slice(0, settings.job_rows), member, task)
    task.save()
    return task


def _conversations(inputs: Sequence[str]) -> pa.Table:
    """Returns the usable ones of the first rows, with the columns of `CONVERSATIONS`."""
    tables, room = [], MOST_ROWS_READ
    for file in expand_inputs(inputs):
        for table in read_rows(file, limit=room):
            room -= table.num_rows
            tables.append(table.filter(table["reason"].is_null()).select(list(CELLS)))
        if not room:
            break
    rows = pa.concat_tables(tables).combine_chunks()
    return rows.add_column(0, "row", pa.array(np.arange(rows.num_rows)))


def _described(rows: Rows, task: Task) -> str:
    lengths = rows.lengths
    return (
        f"{len(rows):,} rows of {lengths.min():,} to {lengths.max():,} tokens, {lengths.mean():,.0f} on average, "
        f"cut at {task.max_length:,}; {task.threads} threads, {task.clock} seconds"
    )


def _measure(names: Sequence[str], repeats: int, workers: Workers, found: Measurements, say: Say) -> None:
    for repeat in range(repeats):
        for name in names:
            if name in found.failures:
                continue
            try:
                turn = workers.run(name)
            except SideFailed as failure:
                found.failures[name] = str(failure)
                say(f"{name}: failed: {failure}")
            else:
                found.turns.setdefault(name, []).append(turn)
                say(f"round {repeat + 1} of {repeats}, {name}: {turn.seconds:,.1f} s")
