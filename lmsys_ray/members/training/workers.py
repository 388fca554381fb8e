"""The workers of a training: one per GPU, or one on CPU, by Ray Train, which restarts those that die."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from lmsys_ray.cluster.resources import Resources
from lmsys_ray.engine.cpu import share_of_cores, use_cores
from lmsys_ray.errors import RunError
from lmsys_ray.members.training.files import ProgressFiles

Say = Callable[[str], None]

_RESTARTS = 3
_SECONDS_BETWEEN_LOOKS = 1.0


class WorkerSettings(Protocol):
    """The settings that place the workers of a training."""

    @property
    def workers(self) -> int | None: ...

    @property
    def device(self) -> Literal["auto", "cpu", "gpu"]: ...

    @property
    def seed(self) -> int: ...

    def model_dump(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Worker:
    """One of several processes that train the same model."""

    rank: int
    workers: int
    device: torch.device
    report: Callable[[dict[str, Any]], None]
    """Tells Ray Train the figures of a validation; called by every worker."""


Work = Callable[[dict[str, Any], str, Worker], None]
"""What a worker does, in a process of its own, with the settings as a mapping and the directory of the training."""


def run_workers(work: Work, settings: WorkerSettings, files: ProgressFiles, resources: Resources, say: Say) -> None:
    """Runs `work` in each worker until all have finished; `say` gets a line for each line of the metrics.

    Raises the `RunError` that a worker raised, and one where workers died too often.
    """
    use_gpu = settings.device == "gpu" or (settings.device == "auto" and resources.gpus > 0)
    workers = settings.workers or (max(1, resources.gpus) if use_gpu else 1)
    cores = None if workers == 1 else max(1, resources.cpus // workers)
    for name in ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    directory = files.directory.resolve()
    trainer = TorchTrainer(
        partial(_in_worker, work),
        train_loop_config={"settings": settings.model_dump(), "directory": str(directory), "cores": cores},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker=_share(use_gpu)),
        run_config=RunConfig(storage_path=str(directory / "ray"), failure_config=FailureConfig(max_failures=_RESTARTS)),
    )
    # In the main thread, Ray Train would catch the signals that stop the command.
    pool = ThreadPoolExecutor(1)
    with _metrics_shown(files, say):
        try:
            pool.submit(trainer.fit).result()
        except ray.train.TrainingFailedError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise RunError(
                f"a training worker failed {_RESTARTS + 1} times ({reason}); "
                f"the same command resumes from the last checkpoint in {files.directory}"
            ) from error
        finally:
            pool.shutdown(wait=False)
    files.raise_failure()


def _share(use_gpu: bool) -> dict[str, float]:
    """Returns what a worker reserves; with a GPU no CPU, or a lack of CPUs would leave GPUs idle."""
    return {"CPU": 0, "GPU": 1} if use_gpu else {"CPU": 1}


def _in_worker(work: Work, config: dict[str, Any]) -> None:
    """Runs in each worker of Ray Train."""
    context = ray.train.get_context()
    use_cores(config["cores"] or share_of_cores("auto", "auto"))
    torch.manual_seed(config["settings"]["seed"])
    worker = Worker(context.get_world_rank(), context.get_world_size(), get_device(), ray.train.report)
    try:
        work(config["settings"], config["directory"], worker)
    except RunError as error:  # every worker gets it, since losses are shared; a restart would get it again
        ProgressFiles(config["directory"]).save_failure(error)


@contextmanager
def _metrics_shown(files: ProgressFiles, say: Say) -> Iterator[None]:
    """Shows each new line of the metrics while workers, on any machine, write them."""
    done = threading.Event()

    def follow() -> None:
        shown = len(files.read_metrics())
        while True:
            ending = done.wait(_SECONDS_BETWEEN_LOOKS)
            lines = files.read_metrics()
            for line in lines[shown:]:
                say(metrics_sentence(line))
            shown = len(lines)
            if ending:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def metrics_sentence(line: dict[str, Any]) -> str:
    """Returns a line of the metrics as it is shown to the user."""
    validation = f", validation {line['validation_loss']:.4f}" if "validation_loss" in line else ""
    best = " (best)" if 0 < line["best_step"] == line["step"] else ""
    speed = f"{line['tokens_per_second']:,.0f} tokens/s"
    return f"step {line['step']:,} of {line['steps']:,}: training {line['train_loss']:.4f}{validation}{best}, {speed}"
