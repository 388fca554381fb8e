"""The training loop of one worker: steps, validations, checkpoints. Knows torch, not Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from lmsys_ray.errors import RunError
from lmsys_ray.members.classifier.training.examples import Batch, Examples, epoch_ends, plan_steps
from lmsys_ray.members.classifier.training.files import TrainingFiles
from lmsys_ray.members.classifier.training.head_start import start_head
from lmsys_ray.members.classifier.training.model import TrainedClassifier
from lmsys_ray.members.classifier.training.options import TrainingSettings
from lmsys_ray.members.training.batches import validation_batches
from lmsys_ray.members.training.schedule import learning_rate_factor
from lmsys_ray.metrics import SMALLEST


@dataclass
class Progress:
    """The progress of a training; with the weights, all that a killed run needs to resume."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    worse: int = 0
    """Validations since the best one."""
    seconds: float = 0.0
    finished: bool = False
    workers: int = 1
    """The plan of the steps depends on the number of workers."""
    head_started: bool = False
    """Whether the head has been fitted, where `head_start` asks for that."""


def _parameter_groups(classifier: TrainedClassifier, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Returns the adapter or backbone, then the head, each with its own learning rate.

    AdamW moves every weight by about the learning rate, whatever its gradient, so that the logits of a head over
    hundreds of large hidden values shift by their sum. At the adapter's rate this noise exceeded the signal. Biases and
    the weights of norms, where they are trained, are in groups of their own: they do not decay.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {(False, True): [], (True, True): []}
    for name, weight in classifier.named_parameters():
        if weight.requires_grad:
            decays = settings.lora == "adapter" or weight.ndim > 1
            groups.setdefault((classifier.is_head(name), decays), []).append(weight)
    made: list[dict[str, Any]] = []
    for (head, decays), weights in groups.items():
        rate = settings.head_learning_rate if head else settings.rate
        decay = settings.weight_decay if decays else 0.0
        made.append({"params": weights, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return made


class TrainingLoop:
    """Trains `classifier` on `training`, judged on `validation` (None: the last weights are the best).

    Each of `workers` processes makes the same plan and computes its own micro-batches; where there are several, torch's
    process group must exist.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        classifier: TrainedClassifier,
        training: Examples,
        validation: Examples | None,
        files: TrainingFiles,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        self.settings, self.classifier, self.files = settings, classifier, files
        self.training, self.validation = training, validation
        self.rank, self.workers = rank, workers
        self.device = next(classifier.parameters()).device
        self.steps = plan_steps(training.lengths, settings, workers)
        if not self.steps and not settings.head_only:
            raise RunError(f"{len(training.labels)} rows do not fill one step; lower batch_tokens or accumulate")
        every, last = settings.evaluate_steps, len(self.steps)
        self.judged = epoch_ends(self.steps) if every == "epoch" else {*range(every, last, every), last}
        """The numbers of steps after which it is validated."""
        self.rows_per_step = sum(len(batch.rows) for step in self.steps for batch in step) / max(1, len(self.steps))
        self.module: torch.nn.Module = classifier
        if workers > 1:
            self.module = torch.nn.parallel.DistributedDataParallel(classifier)
        self.optimizer = torch.optim.AdamW(_parameter_groups(classifier, settings))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=classifier.compute == torch.float16)
        self.progress = Progress(workers=workers)

    def run(self, report: Callable[[dict[str, Any]], None]) -> Progress:
        """Trains from the last checkpoint, or from the start, to the end; returns the progress.

        Calls `report` with the figures of each validation, in every worker. Raises `RunError` where a loss is not
        finite, or where the checkpoint is from another number of workers.
        """
        self._resume()
        if self.settings.head_start == "fitted" and not self.progress.head_started:
            report(self._start_head())
            self._checkpoint()
        losses: list[float] = []
        tokens, began = 0, time.monotonic()
        while not self.progress.finished:
            step = self.progress.step
            losses.append(self._step(step))
            tokens += sum(int(self.training.lengths[batch.rows].sum()) for batch in self.steps[step])
            self.progress.step += 1
            if self.progress.step in self.judged:
                elapsed = time.monotonic() - began
                self.progress.seconds += elapsed
                figures = {"train_loss": float(np.mean(losses)), "tokens_per_second": tokens / elapsed}
                report(self._judge(figures, self.progress.step == len(self.steps)))
                losses, tokens, began = [], 0, time.monotonic()
            if self.progress.step % self.settings.checkpoint_steps == 0 or self.progress.finished:
                self._checkpoint()
        return self.progress

    def _start_head(self) -> dict[str, Any]:
        """Fits the head to the frozen features; returns the line for the metrics."""
        began = time.monotonic()
        fitted = start_head(self.classifier, self.training, self.files, self.settings, self.rank, self.workers)
        self.progress.head_started = True
        self.progress.seconds += time.monotonic() - began
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        tokens = int(self.training.straight.lengths.sum()) * (2 if self.settings.swap else 1)
        figures = {"train_loss": fitted, "tokens_per_second": tokens / self.progress.seconds}
        return self._judge(figures, last=self.settings.head_only, keep=self.settings.head_only)

    def _step(self, step: int) -> float:
        """Takes one step of the optimizer; returns the mean loss of its rows over all workers."""
        self.module.train()
        # A training that resumes drops out what the same one, unstopped, would have.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, step, self.rank]).generate_state(1)[0]))
        factor = learning_rate_factor(step, len(self.steps), self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        loss_sum = 0.0
        for batch in self.steps[step][self.rank :: self.workers]:
            loss = self._loss(batch)
            # Every row has the same weight, in a step of few long rows and in one of many short ones; DDP averages
            # workers.
            self.scaler.scale(loss * self.workers / self.rows_per_step).backward()
            loss_sum += float(loss.detach())
        mean = self._shared_sum(loss_sum) / sum(len(batch.rows) for batch in self.steps[step])
        if not math.isfinite(mean):
            raise RunError(
                f"the loss of step {step + 1} is not finite; lower learning_rate, or set dtype to float32, "
                "and start again with another output"
            )
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return mean

    def _loss(self, batch: Batch) -> torch.Tensor:
        rows, labels = self.training.batch(batch.rows, batch.swap)
        keys = [("training", row, swapped) for row, swapped in zip(batch.rows, batch.swap, strict=True)]
        second = self.training.second(batch.rows, batch.swap)
        logits = self.module(*self.classifier.collate(rows, keys, self.device, second))
        targets, smoothing = torch.from_numpy(labels).to(self.device), self.settings.label_smoothing
        return cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)

    def _judge(self, figures: dict[str, float], last: bool, keep: bool = True) -> dict[str, Any]:
        """Validates, keeps the weights where they are the best so far, and returns the line for the metrics.

        Without `keep` weights are not kept: an adapter that will be trained is not a candidate before its first step.
        """
        progress = self.progress
        line = {"step": progress.step, "steps": len(self.steps), "epoch": self._epoch(), **figures}
        line["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if self.validation is None:
            better = last
        else:
            line["validation_loss"] = self.validate(self.validation, self.settings.validation_rows)
            better = keep and line["validation_loss"] < progress.best_loss
            if better:
                progress.best_loss = line["validation_loss"]
        progress.worse = 0 if better or not keep else progress.worse + 1
        progress.finished = last or (self.validation is not None and progress.worse >= self.settings.patience)
        if better:
            progress.best_step = progress.step
            if self.rank == 0:
                self.files.save_best(self.classifier.weights())
        line["best_step"] = progress.best_step
        line["seconds"] = round(progress.seconds, 1)
        if self.rank == 0:
            self.files.append_metrics(line)
        return line

    def _epoch(self) -> float:
        """Returns how many epochs are done."""
        return round(self.settings.epochs * self.progress.step / max(1, len(self.steps)), 3)

    def validate(self, examples: Examples, limit: int | None = None) -> float:
        """Returns the mean log loss of the first `limit` rows, A before B; all workers take part."""
        rows = np.arange(len(examples.labels))[:limit]
        own = rows[self.rank :: self.workers]
        probabilities = np.clip(self.probabilities(examples, own), SMALLEST, 1)
        losses = -np.log(probabilities[np.arange(len(own)), examples.labels[own]])
        return self._shared_sum(float(losses.sum())) / len(rows)

    def _shared_sum(self, value: float) -> float:
        """Returns the sum of every worker's `value`, the same on all of them."""
        if self.workers == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total)

    @torch.no_grad()
    def probabilities(self, examples: Examples, rows: np.ndarray) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] of the rows of `examples`, A before B, computed by this worker."""
        self.classifier.eval()
        result = np.empty((len(rows), 3), np.float32)
        for batch in validation_batches(examples.straight.lengths[rows], self.settings.batch_tokens):
            ids = [examples.straight[row] for row in rows[batch]]
            keys = [("held out", row) for row in rows[batch]]
            second = examples.second(rows[batch], np.zeros(len(batch), bool))
            logits = self.classifier(*self.classifier.collate(ids, keys, self.device, second))
            result[batch] = torch.softmax(logits, dim=-1).cpu().numpy()
        return result

    def finish(self) -> None:
        """Saves the best weights as scoring loads them, and the probabilities of all held-out rows under them."""
        if self.workers > 1:
            torch.distributed.barrier()  # until the best weights are in the file
        self.classifier.load_weights(self.files.load_best())
        if self.validation is not None:
            own = np.arange(len(self.validation.labels))[self.rank :: self.workers]
            self.files.save_probabilities(self.rank, own, self.probabilities(self.validation, own))
        if self.rank == 0:
            self.classifier.save(self.files.result, self.settings.model)
            self.files.save_how_computed(self.classifier.how_computed())

    def _checkpoint(self) -> None:
        if self.rank == 0:
            weights = self.classifier.weights()
            optimizer, scaler = self.optimizer.state_dict(), self.scaler.state_dict()
            self.files.save_checkpoint(
                {"progress": asdict(self.progress), "weights": weights, "optimizer": optimizer, "scaler": scaler}
            )

    def _resume(self) -> None:
        checkpoint = self.files.load_checkpoint()
        if checkpoint is None:
            return
        self.progress = Progress(**checkpoint["progress"])
        if self.progress.workers != self.workers:
            step, before = self.progress.step, self.progress.workers
            raise RunError(
                f"{self.files.directory} was trained by {before} workers until step {step} and there are "
                f"{self.workers} now; set workers={before}, or remove that directory"
            )
        self.classifier.load_weights(checkpoint["weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.rank == 0:
            self.files.forget_metrics_after(self.progress.step)
