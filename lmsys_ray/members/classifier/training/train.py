"""Fine-tuning of a sequence classifier on Ray Train: one worker per GPU, or one on CPU."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmsys_ray.cluster.connect import ray_cluster
from lmsys_ray.data.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.members.classifier.training.building import build_classifier
from lmsys_ray.members.classifier.training.examples import encode_examples
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.loop import TrainingLoop
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.classifier.training.output import finish
from lmsys_ray.members.training.run import Split, claim, split_rows
from lmsys_ray.members.training.workers import Say, Worker, run_workers
from lmsys_ray.storage import durable


def train(settings: TrainingSettings, say: Say) -> dict[str, Any]:
    """Trains an adapter or a model and writes it to `settings.output`; returns its figures.

    Work in progress is in `OUTPUT.partial`; the same command resumes from its last checkpoint, and the output appears
    whole by a rename. `say` gets a line for every validation. Raises `UsageError` or `RunError` for rows, a model or
    settings that cannot be used, and for a loss that is not finite.
    """
    rows = read_labelled(settings.input, settings.fold_column)
    split = split_rows(rows, settings)
    files = TrainingFiles(claim(settings))
    say(f"{len(split.training):,} rows to learn from, {len(split.held_out):,} held out, {rows.rejected:,} left out")
    _prepare(rows, split, settings, files)
    with ray_cluster(settings.allow_unauthenticated, say) as resources:
        run_workers(_work, settings, files, resources, say)
    if note := head_alone_was_better(files.read_metrics()):
        say(note)
    figures = finish(settings, files, rows, split.training, split.held_out)
    durable.replace(files.result, Path(settings.output))
    shutil.rmtree(files.directory)
    return figures


def _prepare(rows: LabelledRows, split: Split, settings: TrainingSettings, files: TrainingFiles) -> None:
    """Tokenizes both parts once; workers, and later starts of the same training, read them."""
    for name, part in (("training", split.training), ("held_out", split.held_out)):
        if not files.has_examples(name):
            conversations = rows.conversations.take(part)
            examples = encode_examples(conversations, rows.labels[part], rows.groups[part], settings.reading())
            files.save_examples(name, examples)


def _work(values: dict[str, Any], directory: str, worker: Worker) -> None:
    settings, files = TrainingSettings(**values), TrainingFiles(directory)
    classifier = build_classifier(settings, worker.device)
    training, held_out = files.load_examples("training"), files.load_examples("held_out")
    for examples in (training, held_out):
        classifier.check_embedded(examples.straight.flat, settings.model)
    validation = held_out if len(held_out.labels) else None
    loop = TrainingLoop(settings, classifier, training, validation, files, worker.rank, worker.workers)
    loop.run(worker.report)
    loop.finish()


def head_alone_was_better(metrics: Sequence[dict[str, Any]]) -> str | None:
    """Returns a sentence where the metrics show that training after the fit of the head made it worse, else None."""
    losses = {line["step"]: line["validation_loss"] for line in metrics if "validation_loss" in line}
    best = losses.get(metrics[-1]["best_step"])
    if best is None or best <= losses.get(0, best):
        return None
    return (
        f"the fitted head alone reached {losses[0]:.4f}, no later step was better than {best:.4f}; "
        "set epochs=0 to keep that head alone, or lower learning_rate"
    )
