"""Training of a shared encoder on Ray Train: one worker per GPU, or one on CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lmsys_ray.cluster.connect import ray_cluster
from lmsys_ray.data.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.members.shared_encoder.training.examples import Examples, encode_examples
from lmsys_ray.members.shared_encoder.training.files import TrainingFiles
from lmsys_ray.members.shared_encoder.training.frozen import train_head
from lmsys_ray.members.shared_encoder.training.loop import EncoderLoop
from lmsys_ray.members.shared_encoder.training.model import build_model, check_examples
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.members.shared_encoder.training.output import finish
from lmsys_ray.members.training.run import Split, claim, split_rows
from lmsys_ray.members.training.workers import Say, Worker, run_workers
from lmsys_ray.storage import durable


def train_shared_encoder(settings: TrainingSettings, say: Say) -> dict[str, Any]:
    """Trains a shared encoder and writes it to the directory `settings.output`; returns its figures.

    Work in progress is in `OUTPUT.partial`; the same command resumes from its last checkpoint, and the output appears
    whole by a rename. `say` gets a line for each epoch. Raises `UsageError` or `RunError` for rows, a model or settings
    that cannot be used, and for a loss that is not finite.
    """
    rows = read_labelled(settings.input, settings.fold_column)
    split = split_rows(rows, settings)
    files = TrainingFiles(claim(settings))
    say(f"{len(split.training):,} rows to learn from, {len(split.held_out):,} held out, {rows.rejected:,} left out")
    _prepare(rows, split, settings, files)
    with ray_cluster(settings.allow_unauthenticated, say) as resources:
        run_workers(_work, settings, files, resources, say)
    figures = finish(settings, files, rows, split.training, split.held_out)
    durable.replace(files.result, Path(settings.output))
    shutil.rmtree(files.directory)
    return figures


def _prepare(rows: LabelledRows, split: Split, settings: TrainingSettings, files: TrainingFiles) -> None:
    """Tokenizes both parts once; workers, and later starts of the same training, read them."""
    for path, part in ((files.training, split.training), (files.held_out, split.held_out)):
        if not path.exists():
            conversations = rows.conversations.take(part)
            examples = encode_examples(conversations, rows.labels[part], rows.groups[part], settings.reading())
            examples.save(path)


def _work(values: dict[str, Any], directory: str, worker: Worker) -> None:
    settings, files = TrainingSettings(**values), TrainingFiles(directory)
    model = build_model(settings, worker.device)
    training, held_out = Examples.load(files.training), Examples.load(files.held_out)
    for examples in (training, held_out):
        check_examples(model, examples, settings.model)
    judged = held_out if len(held_out.labels) else None
    if settings.frozen:
        train_head(settings, model, training, judged, files, worker.report)
        return
    loop = EncoderLoop(settings, model, training, judged, files, worker.rank, worker.workers)
    loop.run(worker.report)
    loop.finish()
