"""The files of a classifier's training in progress, beside those that every training has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmsys_ray.engine.ragged import RaggedIds
from lmsys_ray.members.classifier.training.examples import Examples
from lmsys_ray.members.training.files import ProgressFiles, replaced


class TrainingFiles(ProgressFiles):
    """The directory of a training in progress, which several workers on several machines may share."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory)
        self.result = self.directory / "result"

    def save_examples(self, name: str, examples: Examples) -> None:
        """Writes tokenized examples, for a training that resumes and for other workers."""
        with replaced(self.directory / f"{name}.npz") as aside, aside.open("wb") as file:
            np.savez(
                file,
                straight=examples.straight.flat,
                straight_starts=examples.straight.starts,
                swapped=examples.swapped.flat,
                swapped_starts=examples.swapped.starts,
                labels=examples.labels,
                groups=examples.groups,
                straight_second=examples.straight_second,
                swapped_second=examples.swapped_second,
            )

    def has_examples(self, name: str) -> bool:
        """Returns whether `save_examples` wrote them."""
        return (self.directory / f"{name}.npz").exists()

    def load_examples(self, name: str) -> Examples:
        """Returns the examples that were saved as `name`."""
        with np.load(self.directory / f"{name}.npz") as saved:
            straight = RaggedIds(saved["straight"], saved["straight_starts"])
            swapped = RaggedIds(saved["swapped"], saved["swapped_starts"])
            flat = ("labels", "groups", "straight_second", "swapped_second")
            return Examples(straight, swapped, *(saved[name] for name in flat))

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
