"""The files of a shared encoder's training in progress, beside those that every training has."""

from __future__ import annotations

from pathlib import Path

from lmsys_ray.members.training.files import ProgressFiles


class TrainingFiles(ProgressFiles):
    """The directory of a training in progress, which several workers on several machines may share."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory)
        self.training = self.directory / "training.npz"
        self.held_out = self.directory / "held_out.npz"
        self.result = self.directory / "result"
