"""The training loop of one worker: steps, a validation after each epoch, checkpoints. Knows torch, not Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from lmsys_ray import SWAPPED
from lmsys_ray.errors import RunError
from lmsys_ray.members.shared_encoder.training.examples import Examples, plan_epochs
from lmsys_ray.members.shared_encoder.training.files import TrainingFiles
from lmsys_ray.members.shared_encoder.training.model import SharedEncoderModel
from lmsys_ray.members.shared_encoder.training.options import TrainingSettings
from lmsys_ray.members.training.batches import validation_batches
from lmsys_ray.members.training.schedule import learning_rate_factor
from lmsys_ray.metrics import SMALLEST

Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """The progress of a training; with weights and optimizer, all that a killed run needs to resume."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    worse: int = 0
    """Epochs since the best one."""
    seconds: float = 0.0
    finished: bool = False
    workers: int = 1
    """The plan of the steps depends on the number of workers."""
    loss_sum: float = 0.0
    """Of the rows of this epoch so far."""
    rows: int = 0
    tokens: int = 0


class EncoderLoop:
    """Trains `model` on `training`, judged on `held_out` after each epoch (None: the last weights are the best).

    Each of `workers` processes makes the same plan and computes its own batches; where there are several, torch's
    process group must exist. Each step seeds dropout by its number, so that a resumed training makes the same steps.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        model: SharedEncoderModel,
        training: Examples,
        held_out: Examples | None,
        files: TrainingFiles,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        self.settings, self.model, self.files = settings, model, files
        self.training, self.held_out = training, held_out
        self.rank, self.workers = rank, workers
        self.device = model.head.weight.device
        epochs = plan_epochs(training.longest, settings, workers)
        self.steps = [step for epoch in epochs for step in epoch]
        self.ends = set(np.cumsum([len(epoch) for epoch in epochs]).tolist())
        if not self.steps:
            raise RunError(f"{len(training.labels)} rows do not fill one step; lower batch_tokens or accumulate")
        self.rows_per_step = sum(len(rows) for step in self.steps for rows in step) / len(self.steps)
        self.module: torch.nn.Module = model
        if workers > 1:
            self.module = torch.nn.parallel.DistributedDataParallel(model)
        self.optimizer = torch.optim.AdamW(_parameter_groups(model, settings))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=model.compute == torch.float16)
        self.progress = Progress(workers=workers)

    def run(self, report: Report) -> Progress:
        """Trains from the last checkpoint, or from the start, to the end; returns the progress.

        Calls `report` with the figures of each epoch, in every worker. Raises `RunError` where a loss is not finite, or
        where the checkpoint is from another number of workers.
        """
        self._resume()
        began = time.monotonic()
        progress = self.progress
        while not progress.finished:
            self._step(progress.step)
            progress.step += 1
            if ended := progress.step in self.ends:
                progress.seconds, began = progress.seconds + time.monotonic() - began, time.monotonic()
                report(self._judge(last=progress.step == len(self.steps)))
            if ended or progress.step % self.settings.checkpoint_steps == 0:
                progress.seconds, began = progress.seconds + time.monotonic() - began, time.monotonic()
                self._checkpoint()
        return progress

    def _step(self, step: int) -> None:
        """Takes one step of the optimizer."""
        self.module.train()
        torch.manual_seed(self.settings.seed + 1_000_003 * (step * self.workers + self.rank))
        factor = learning_rate_factor(step, len(self.steps), self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        loss_sum = 0.0
        for rows in self.steps[step][self.rank :: self.workers]:
            learnt, shown = self._losses(rows)
            # Every row has the same weight, in a step of few long rows and in one of many; DDP averages workers.
            self.scaler.scale(learnt * self.workers / self.rows_per_step).backward()  # type: ignore[no-untyped-call]
            loss_sum += shown
        total = self._shared_sum(loss_sum)
        if not math.isfinite(total):
            raise RunError(
                f"the loss of step {step + 1} is not finite; lower learning_rate, or set dtype to float32, "
                "and start again with another output"
            )
        self.progress.loss_sum += total
        self.progress.rows += sum(map(len, self.steps[step]))
        self.progress.tokens += sum(map(self.training.tokens, self.steps[step]))
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _losses(self, rows: np.ndarray) -> tuple[torch.Tensor, float]:
        """Returns the sum of the rows' losses with smoothed labels, and of those with A first without smoothing."""
        straight, swapped = self.module(*self.model.collate(self.training.texts(rows), self.device))
        labels = torch.from_numpy(self.training.labels[rows]).to(self.device)
        smoothing = self.settings.label_smoothing
        loss = cross_entropy(straight, labels, reduction="sum", label_smoothing=smoothing)
        if self.settings.swap:
            exchanged = torch.tensor(SWAPPED, device=self.device)[labels]
            loss = (loss + cross_entropy(swapped, exchanged, reduction="sum", label_smoothing=smoothing)) / 2
        return loss, float(cross_entropy(straight.detach(), labels, reduction="sum"))

    def _judge(self, last: bool) -> dict[str, Any]:
        """Validates, keeps the weights where they are the best so far, and returns the line for the metrics."""
        progress, seconds = self.progress, self.progress.seconds
        line: dict[str, Any] = {"step": progress.step, "steps": len(self.steps)}
        line["train_loss"] = progress.loss_sum / max(1, progress.rows)
        line["tokens_per_second"] = progress.tokens / max(seconds, 1e-9)
        line["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        better = last
        if self.held_out is not None:
            own = np.arange(len(self.held_out.labels))[self.rank :: self.workers]
            chosen = self.probabilities(self.held_out, own)[np.arange(len(own)), self.held_out.labels[own]]
            loss = float(-np.log(np.clip(chosen, SMALLEST, 1)).sum())
            line["validation_loss"] = self._shared_sum(loss) / len(self.held_out.labels)
            better = line["validation_loss"] < progress.best_loss
        if better:
            progress.best_step, progress.best_loss = progress.step, line.get("validation_loss", math.inf)
            if self.rank == 0:
                self.files.save_best(self.model.state())
        progress.worse = 0 if better or self.held_out is None else progress.worse + 1
        progress.finished = last or progress.worse >= self.settings.patience
        progress.loss_sum, progress.rows = 0.0, 0
        line |= {"best_step": progress.best_step, "seconds": round(seconds, 1)}
        if self.rank == 0:
            self.files.append_metrics(line)
        return line

    def _shared_sum(self, value: float) -> float:
        """Returns the sum of every worker's `value`, the same on all of them."""
        if self.workers == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total)

    def probabilities(self, examples: Examples, rows: np.ndarray) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] of the rows of `examples`, A before B, computed by this worker."""
        return predicted(self.model, examples, rows, self.settings.batch_tokens)

    def finish(self) -> None:
        """Writes the best weights as a member loads them, and the probabilities of the held-out rows under them."""
        if self.workers > 1:
            torch.distributed.barrier()  # until the best weights are in the file
        self.model.load_state_dict(self.files.load_best())
        if self.held_out is not None:
            own = np.arange(len(self.held_out.labels))[self.rank :: self.workers]
            self.files.save_probabilities(self.rank, own, self.probabilities(self.held_out, own))
        if self.rank == 0:
            self.model.save(self.files.result, self.settings.model)
            self.files.save_how_computed({"dtype": str(self.model.compute).removeprefix("torch.")})

    def _checkpoint(self) -> None:
        if self.rank == 0:
            optimizer, scaler = self.optimizer.state_dict(), self.scaler.state_dict()
            state = {"progress": asdict(self.progress), "weights": self.model.state()}
            self.files.save_checkpoint({**state, "optimizer": optimizer, "scaler": scaler})

    def _resume(self) -> None:
        checkpoint = self.files.load_checkpoint()
        if checkpoint is None:
            return
        self.progress = Progress(**checkpoint["progress"])
        if self.progress.workers != self.workers:
            raise RunError(
                f"{self.files.directory} was trained by {self.progress.workers} workers until step "
                f"{self.progress.step} and there are {self.workers} now; set workers={self.progress.workers}, or "
                "remove that directory"
            )
        self.model.load_state_dict(checkpoint["weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.rank == 0:
            self.files.forget_metrics_after(self.progress.step)


def _parameter_groups(model: SharedEncoderModel, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Returns encoder and head, each with its learning rate; biases and norms do not decay."""
    groups = []
    for part, rate in ((model.averaged, settings.learning_rate), (model.head, settings.head_learning_rate)):
        weights = [weight for weight in part.parameters() if weight.requires_grad]
        for decays in (True, False):
            chosen = [weight for weight in weights if (weight.ndim > 1) == decays]
            decay = settings.weight_decay if decays else 0.0
            groups.append({"params": chosen, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


@torch.no_grad()
def predicted(model: SharedEncoderModel, examples: Examples, rows: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Returns float32 probabilities [rows, 3] of the rows of `examples`, A before B."""
    model.eval()
    device, result = model.head.weight.device, np.empty((len(rows), 3), np.float32)
    for batch in validation_batches(examples.longest[rows], max(1, batch_tokens // 2)):
        logits = model(*model.collate(examples.texts(rows[batch]), device))[0]
        result[batch] = torch.softmax(logits, dim=-1).cpu().numpy()
    return result
