"""LoRA fine-tuning of a sequence classifier on Ray Train: one worker per GPU, or one on CPU."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from lmsys_ray.cluster import Resources, ray_cluster
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.identity import content
from lmsys_ray.members.llama.devices import share_of_cores, use_cores
from lmsys_ray.readers import expand_inputs
from lmsys_ray.resources import locate
from lmsys_ray.storage import exists, path_of
from lmsys_ray.training.input_content import NOTED, check_content, input_content
from lmsys_ray.training.labelled_rows import LabelledRows, read_labelled
from lmsys_ray.training.lora_data import encode_examples
from lmsys_ray.training.lora_files import TrainingFiles
from lmsys_ray.training.lora_loop import LoraLoop
from lmsys_ray.training.lora_model import build_classifier
from lmsys_ray.training.lora_output import finish
from lmsys_ray.training.lora_settings import LoraSettings

Say = Callable[[str], None]

_RESTARTS = 3
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Split:
    """Which rows are learnt from and which are held out, as indices into the labelled rows."""

    training: np.ndarray
    held_out: np.ndarray


def train_lora(settings: LoraSettings, say: Say) -> dict[str, Any]:
    """Trains an adapter and writes it, as a PEFT directory, to `settings.output`; returns its figures.

    What is under way lies in `OUTPUT.partial`; the same command goes on from its last checkpoint, and the output
    appears whole by a rename. `say` is given a line for every validation.

    Raises `UsageError` or `RunError` for rows, a model or settings that cannot be used, and for a loss that is not
    finite.
    """
    rows = read_labelled(settings.input, settings.fold_column)
    split = split_rows(rows, settings)
    files = claim(settings)
    say(f"{len(split.training):,} rows to learn from, {len(split.held_out):,} held out, {rows.rejected:,} left out")
    _prepare(rows, split, settings, files)
    with ray_cluster() as resources:
        _fit(settings, files, resources, say)
    files.raise_failure()
    if note := head_alone_was_better(files.read_metrics()):
        say(note)
    figures = finish(settings, files, rows, split.training, split.held_out)
    files.adapter.rename(settings.output)
    shutil.rmtree(files.directory)
    return figures


def split_rows(rows: LabelledRows, settings: LoraSettings) -> Split:
    """Holds out the fold that the settings name, whole prompts at a time; fold -1 holds out nothing.

    Raises `UsageError` for a fold that is not there, `RunError` where there are too few rows for the folds.
    """
    if settings.fold == -1:
        return Split(np.arange(len(rows.labels)), np.empty(0, np.int64))
    names, assigned = rows.folds(settings.folds, settings.seed)
    if settings.fold >= len(names):
        last = len(names) - 1
        raise UsageError(f"--fold: {settings.fold} is none of the {len(names)} folds; give -1 to {last}")
    inside = assigned == settings.fold
    training = np.flatnonzero(rows.outside(inside))
    if not len(training):
        raise RunError(
            f"fold {names[settings.fold]} shares its prompts with every other row; none is left to learn from"
        )
    # In random order, so that a validation on the first rows is one on a fair sample.
    return Split(training, np.random.default_rng(settings.seed).permutation(np.flatnonzero(inside)))


def claim(settings: LoraSettings) -> TrainingFiles:
    """Makes the directory of the training under way, or takes up the one that the same settings left.

    Raises `UsageError` where the output is there already, or the training under way has other settings or input.
    """
    output = Path(settings.output)
    if output.exists():
        raise UsageError(f"--output: {output} exists; name a new directory, or remove that one first")
    directory = output.with_name(f"{output.name}.partial")
    directory.mkdir(parents=True, exist_ok=True)
    asked = json.loads(settings.model_dump_json(exclude={"output", "workers", "device"}))
    files = input_content(expand_inputs(settings.input))
    if exists(model := path_of(locate(settings.model))):
        asked["content of the model"] = content(model)["digest"]
    record = directory / "settings.json"
    if not record.exists():
        record.write_text(json.dumps(asked | {NOTED: files}, indent=1))
    before = json.loads(record.read_text())
    check_content(before.pop(NOTED, None), files, directory)
    for key in before.keys() | asked.keys():
        if before.get(key) != asked.get(key):
            raise UsageError(
                f"--output: {directory} holds a training with {key} = {before.get(key)} where "
                f"{asked.get(key)} is asked now; go on with those settings, or remove it"
            )
    (directory / "failure.json").unlink(missing_ok=True)
    return TrainingFiles(directory)


def _prepare(rows: LabelledRows, split: Split, settings: LoraSettings, files: TrainingFiles) -> None:
    """Tokenizes both parts once; workers and later starts of the same training read them."""
    for name, part in (("training", split.training), ("held_out", split.held_out)):
        if not files.has_examples(name):
            conversations = rows.conversations.take(part)
            examples = encode_examples(conversations, rows.labels[part], rows.groups[part], settings.scoring())
            files.save_examples(name, examples)


def _fit(settings: LoraSettings, files: TrainingFiles, resources: Resources, say: Say) -> None:
    use_gpu = settings.device == "gpu" or (settings.device == "auto" and resources.gpus > 0)
    workers = settings.workers or (max(1, resources.gpus) if use_gpu else 1)
    cores = None if workers == 1 else max(1, resources.cpus // workers)
    for name in ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    directory = files.directory.resolve()
    trainer = TorchTrainer(
        _work,
        train_loop_config={"settings": settings.model_dump(), "directory": str(directory), "cores": cores},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=_share(use_gpu)),
        run_config=RunConfig(storage_path=str(directory / "ray"), failure_config=FailureConfig(max_failures=_RESTARTS)),
    )
    # In the main thread, Ray Train would take the signals that stop the command.
    pool = ThreadPoolExecutor(1)
    with _told(files, say):
        try:
            pool.submit(trainer.fit).result()
        except ray.train.TrainingFailedError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise RunError(
                f"a training worker failed {_RESTARTS + 1} times ({reason}); "
                f"the same command goes on from the last checkpoint in {files.directory}"
            ) from error
        finally:
            pool.shutdown(wait=False)


def _share(use_gpu: bool) -> dict[str, float]:
    """What a worker reserves; with a GPU no CPU, or few CPUs would leave GPUs idle."""
    return {"CPU": 0, "GPU": 1} if use_gpu else {"CPU": 1}


def _work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    settings, files = LoraSettings(**config["settings"]), TrainingFiles(config["directory"])
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    use_cores(config["cores"] or share_of_cores("auto", "auto"))
    torch.manual_seed(settings.seed)
    try:
        classifier = build_classifier(settings, get_device())
        training, held_out = files.load_examples("training"), files.load_examples("held_out")
        for examples in (training, held_out):
            classifier.check_embedded(examples.straight.flat, settings.model)
        validation = held_out if len(held_out.labels) else None
        loop = LoraLoop(settings, classifier, training, validation, files, rank, workers)
        loop.run(ray.train.report)
        loop.finish()
    except RunError as error:  # every worker meets it, since losses are shared; a restart would meet it again
        files.save_failure(error)


@contextmanager
def _told(files: TrainingFiles, say: Say) -> Iterator[None]:
    """Says each new line of the metrics while workers, on whatever machine, write them."""
    done = threading.Event()

    def follow() -> None:
        told = len(files.read_metrics())
        while True:
            ending = done.wait(_SECONDS_BETWEEN_LOOKS)
            lines = files.read_metrics()
            for line in lines[told:]:
                say(metrics_sentence(line))
            told = len(lines)
            if ending:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def head_alone_was_better(metrics: Sequence[dict[str, Any]]) -> str | None:
    """Returns a sentence where the lines of the metrics show that the steps behind a fitted head made it worse."""
    losses = {line["step"]: line["validation_loss"] for line in metrics if "validation_loss" in line}
    best = losses.get(metrics[-1]["best_step"])
    if best is None or best <= losses.get(0, best):
        return None
    return (
        f"the fitted head alone reached {losses[0]:.4f}, no later step was better than {best:.4f}; "
        "set epochs=0 to keep that head alone, or lower learning_rate"
    )


def metrics_sentence(line: dict[str, Any]) -> str:
    """Returns a line of the metrics as it is shown to people."""
    validation = f", validation {line['validation_loss']:.4f}" if "validation_loss" in line else ""
    best = " (best)" if 0 < line["best_step"] == line["step"] else ""
    speed = f"{line['tokens_per_second']:,.0f} tokens/s"
    return f"step {line['step']:,} of {line['steps']:,}: training {line['train_loss']:.4f}{validation}{best}, {speed}"
