"""The files of a training in progress: checkpoint, best weights, metrics. Each is written aside, then renamed."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.storage import durable


class ProgressFiles:
    """The directory of a training in progress, which several workers on several machines may share."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.checkpoint = self.directory / "checkpoint.pt"
        self.best = self.directory / "best.safetensors"
        self.metrics = self.directory / "metrics.jsonl"
        self.failure = self.directory / "failure.json"
        self.how_computed = self.directory / "how_computed.json"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes what a training resumes from."""
        with replaced(self.checkpoint) as aside:
            torch.save(state, aside)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Returns the last checkpoint, or None if there is none."""
        if not self.checkpoint.exists():
            return None
        return torch.load(self.checkpoint, map_location="cpu", weights_only=True)

    def save_best(self, weights: dict[str, torch.Tensor]) -> None:
        """Writes the weights with the best log loss so far."""
        with replaced(self.best) as aside:
            save_file({key: value.contiguous() for key, value in weights.items()}, aside)

    def load_best(self) -> dict[str, torch.Tensor]:
        """Returns the weights of `save_best`."""
        return load_file(self.best)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds a line to the metrics of the training."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the figures of each validation, in the order of the steps."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def forget_metrics_after(self, step: int) -> None:
        """Drops the lines that a killed run wrote after its last checkpoint, which will be written again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        with replaced(self.metrics) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def save_probabilities(self, rank: int, rows: np.ndarray, probabilities: np.ndarray) -> None:
        """Keeps one worker's share of the held-out rows: their indices [rows] and probabilities [rows, 3]."""
        np.savez(self.directory / f"probabilities-{rank}.npz", rows=rows, probabilities=probabilities)

    def load_probabilities(self, count: int) -> np.ndarray:
        """Returns float32 probabilities [count, 3] of all held-out rows, from every worker's share."""
        result = np.full((count, 3), np.nan, np.float32)
        for path in self.directory.glob("probabilities-*.npz"):
            with np.load(path) as saved:
                result[saved["rows"]] = saved["probabilities"]
        return result

    def save_how_computed(self, noted: dict[str, str]) -> None:
        """Keeps in which types and on what device a worker computed, which only it knows."""
        self.how_computed.write_text(json.dumps(noted), encoding="utf-8")

    def load_how_computed(self) -> dict[str, str]:
        """Returns in which types and on what device the training computed."""
        return json.loads(self.how_computed.read_text(encoding="utf-8"))

    def save_failure(self, error: RunError) -> None:
        """Passes a worker's error on to the command; Ray would wrap it in its own."""
        self.failure.write_text(json.dumps({"usage": isinstance(error, UsageError), "text": str(error)}))

    def raise_failure(self) -> None:
        """Raises the error that a worker saved, if any did."""
        if self.failure.exists():
            saved = json.loads(self.failure.read_text())
            raise (UsageError if saved["usage"] else RunError)(saved["text"])


def replaced(path: Path) -> AbstractContextManager[Path]:
    """Gives the path of a file that replaces `path`; one that a killed worker left there is overwritten."""
    return durable.replaced_file(path, path.with_suffix(".tmp"))
