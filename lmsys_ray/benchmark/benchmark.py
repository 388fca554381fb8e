"""Runs the sides of a benchmark by turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lmsys_ray.benchmark.checkpoint import save_checkpoint
from lmsys_ray.benchmark.rows import representative_rows
from lmsys_ray.benchmark.settings import BenchmarkSettings
from lmsys_ray.benchmark.shape import Shape
from lmsys_ray.benchmark.side_pool import SidePool
from lmsys_ray.benchmark.side_process import SideFailed, SideRun
from lmsys_ray.benchmark.sides.encoder import save_encoder_rows
from lmsys_ray.benchmark.sides.features import save_vocabularies
from lmsys_ray.benchmark.sides.registry import ENCODER, FEATURES, JOB, REFERENCE, REWARD, peak_of
from lmsys_ray.benchmark.sides.reward import save_reward
from lmsys_ray.benchmark.task import BenchmarkTask
from lmsys_ray.data.conversations import CELLS
from lmsys_ray.data.readers import expand_inputs, read_rows
from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.errors import UsageError
from lmsys_ray.members.classifier.encoder import ClassifierEncoder

Say = Callable[[str], None]

MOST_ROWS_READ = 10_000
"""The most rows of the input that are read, for the distribution of lengths."""

FEATURE_ROWS = 2_000
"""How many of these rows the feature sides use: two of the notebook's batches."""

PAIR_ROWS = 2_000
"""From how many of these rows those of the reward sides, and of the encoder sides, are chosen."""


@dataclass
class Measurements:
    """The runs of every side, round by round."""

    task: BenchmarkTask
    shape: Shape
    rows: RaggedIds
    runs: dict[str, list[SideRun]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reference: np.ndarray | None = None
    """Probabilities of the first rows, computed one at a time in float32 [checked rows, 3]."""


def benchmark(settings: BenchmarkSettings, say: Say) -> Measurements:
    """Runs every side once per round, with the peaks of their number formats, and then the sides of each further table.

    A side that fails is skipped from then on, and its last line of output is kept. Raises `UsageError` for an input or
    a model that cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="lmsys-ray-benchmark-") as folder:
        say("preparing the rows and the model")
        task = prepare(settings, folder)
        found = Measurements(task, task.shape(), task.rows())
        say(_described(found.rows, task))
        names = settings.chosen_sides(torch.cuda.is_available())
        peaks = dict.fromkeys(peak_of(name, torch.cuda.is_available()) for name in names)
        with SidePool(task, settings.vllm_python, keep=not torch.cuda.is_available()) as workers:
            _measure([REFERENCE], 1, workers, found, say)
            _measure([*peaks, *names], settings.repeats, workers, found, say)
        if settings.features:
            with SidePool(task, settings.vllm_python, keep=True) as workers:
                _measure(list(FEATURES), settings.repeats, workers, found, say)
        for sides, wanted in ((REWARD, settings.reward_rows), (ENCODER, settings.encoder_rows)):
            if wanted:
                with SidePool(task, settings.vllm_python, keep=not torch.cuda.is_available()) as workers:
                    _measure(list(sides), settings.repeats, workers, found, say)
        if settings.job_rows:
            with SidePool(task, settings.vllm_python, keep=not torch.cuda.is_available(), warm_up=False) as workers:
                _measure(list(JOB), settings.repeats, workers, found, say)
    if REFERENCE in found.runs:
        found.reference = np.array(found.runs.pop(REFERENCE)[0].answer["probabilities"])
    return found


def prepare(settings: BenchmarkSettings, folder: str) -> BenchmarkTask:
    """Writes what the sides need to `folder`: the checkpoint, the rows, and the task itself."""
    member = settings.member()
    conversations = _conversations(settings.input)
    if (settings.job_rows or 0) > conversations.num_rows:
        raise UsageError(f"--job-rows: {settings.job_rows} is more than the {conversations.num_rows} rows of the input")
    encoded = ClassifierEncoder(member).encode(conversations)
    rows = RaggedIds.from_arrow(encoded["input_ids"].combine_chunks())
    cuda = torch.cuda.is_available()
    rows = rows.take(representative_rows(rows.lengths, settings.row_count(cuda)))
    columns = save_checkpoint(member, settings.model_shape, Path(folder) / "checkpoint")
    task = BenchmarkTask(
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
        from lmsys_ray.benchmark.sides.job import save_job

        save_job(conversations.slice(0, settings.job_rows), member, task)
    some = conversations.slice(0, PAIR_ROWS)
    if settings.reward_rows:
        task = replace(task, long_prompts=save_reward(some, settings.model, settings.reward_rows, task))
    if settings.encoder_rows:
        save_encoder_rows(some, settings.model, settings.encoder_rows, task)
    task.save()
    return task


def _conversations(inputs: Sequence[str]) -> pa.Table:
    """Returns the usable rows among the first ones, with the columns of `CONVERSATIONS`."""
    tables, room = [], MOST_ROWS_READ
    for file in expand_inputs(inputs):
        for table in read_rows(file, limit=room):
            room -= table.num_rows
            tables.append(table.filter(table["reason"].is_null()).select(["id", *CELLS]))
        if not room:
            break
    rows = pa.concat_tables(tables).combine_chunks()
    return rows.add_column(0, "row", pa.array(np.arange(rows.num_rows)))


def _described(rows: RaggedIds, task: BenchmarkTask) -> str:
    lengths = rows.lengths
    return (
        f"{len(rows):,} rows of {lengths.min():,} to {lengths.max():,} tokens, {lengths.mean():,.0f} on average, "
        f"cut at {task.max_length:,}; {task.threads} threads, {task.clock} seconds"
    )


def _measure(names: Sequence[str], repeats: int, workers: SidePool, found: Measurements, say: Say) -> None:
    for repeat in range(repeats):
        for name in names:
            if name in found.failures:
                continue
            try:
                run = workers.run(name)
            except SideFailed as failure:
                found.failures[name] = str(failure)
                say(f"{name}: failed: {failure}")
            else:
                found.runs.setdefault(name, []).append(run)
                say(f"round {repeat + 1} of {repeats}, {name}: {run.seconds:,.1f} s")
