"""The files of a training under way: checkpoint, best weights, metrics. Each is written aside, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.training.lora_data import Examples, Ragged


class TrainingFiles:
    """The directory of a training under way, which several workers on several machines may share."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.checkpoint = self.directory / "checkpoint.pt"
        self.best = self.directory / "best.safetensors"
        self.metrics = self.directory / "metrics.jsonl"
        self.failure = self.directory / "failure.json"
        self.how_computed = self.directory / "how_computed.json"
        self.adapter = self.directory / "adapter"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        aside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, aside)
        os.replace(aside, self.checkpoint)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Returns what `save_checkpoint` was given last, None where it never was."""
        if not self.checkpoint.exists():
            return None
        return torch.load(self.checkpoint, map_location="cpu", weights_only=True)

    def save_best(self, weights: dict[str, torch.Tensor]) -> None:
        aside = self.best.with_suffix(".tmp")
        save_file({key: value.contiguous() for key, value in weights.items()}, aside)
        os.replace(aside, self.best)

    def load_best(self) -> dict[str, torch.Tensor]:
        return load_file(self.best)

    def append_metrics(self, line: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns one mapping of figures per validation, in the order of the steps."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def forget_metrics_after(self, step: int) -> None:
        """Drops what a killed run wrote after its last checkpoint, and will write again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        aside = self.metrics.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(aside, self.metrics)

    def save_examples(self, name: str, examples: Examples) -> None:
        aside = self.directory / f"{name}.tmp"
        with aside.open("wb") as file:
            np.savez(
                file,
                straight=examples.straight.flat,
                straight_starts=examples.straight.starts,
                swapped=examples.swapped.flat,
                swapped_starts=examples.swapped.starts,
                labels=examples.labels,
                groups=examples.groups,
            )
        os.replace(aside, self.directory / f"{name}.npz")

    def has_examples(self, name: str) -> bool:
        return (self.directory / f"{name}.npz").exists()

    def load_examples(self, name: str) -> Examples:
        """Returns what `save_examples` was given under `name`."""
        with np.load(self.directory / f"{name}.npz") as saved:
            straight = Ragged(saved["straight"], saved["straight_starts"])
            swapped = Ragged(saved["swapped"], saved["swapped_starts"])
            return Examples(straight, swapped, saved["labels"], saved["groups"])

    def save_features(self, rank: int, rows: np.ndarray, swapped: np.ndarray, features: np.ndarray) -> None:
        """Keeps one worker's share of the features [rows, hidden], of `rows` with A and B swapped where `swapped`."""
        np.savez(self.directory / f"features-{rank}.npz", rows=rows, swapped=swapped, features=features)

    def load_features(self, workers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns rows, swapped and features of every worker's share, laid end to end."""
        shares = []
        for rank in range(workers):
            with np.load(self.directory / f"features-{rank}.npz") as saved:
                shares.append((saved["rows"], saved["swapped"], saved["features"]))
        rows, swapped, features = (np.concatenate(parts) for parts in zip(*shares, strict=True))
        return rows, swapped, features

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
        """Keeps what `LoraClassifier.how_computed` told; only a worker knows its device."""
        self.how_computed.write_text(json.dumps(noted), encoding="utf-8")

    def load_how_computed(self) -> dict[str, str]:
        return json.loads(self.how_computed.read_text(encoding="utf-8"))

    def save_failure(self, error: RunError) -> None:
        """Hands a worker's error to the command, which Ray would wrap in its own."""
        self.failure.write_text(json.dumps({"usage": isinstance(error, UsageError), "text": str(error)}))

    def raise_failure(self) -> None:
        """Raises the error that a worker left behind, if any did."""
        if self.failure.exists():
            told = json.loads(self.failure.read_text())
            raise (UsageError if told["usage"] else RunError)(told["text"])
