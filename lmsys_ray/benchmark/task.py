"""The folder that the sides of a benchmark share: a checkpoint, the rows, and how they are to be scored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lmsys_ray.benchmark.rows import Rows
from lmsys_ray.benchmark.shape import Shape


@dataclass(frozen=True)
class Task:
    """What every side is told."""

    folder: str
    max_length: int
    batch_tokens: int
    """Slots of a micro-batch of the packed sides."""
    batch_rows: int
    """Rows of a batch of the plain sides."""
    threads: int
    clock: str
    """One of `worker.CLOCKS`."""
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    checked: int
    """The first so many rows are compared with fp32."""

    @property
    def checkpoint(self) -> Path:
        """A transformers directory: a 3-label classifier, any adapter merged, and its tokenizer."""
        return Path(self.folder) / "checkpoint"

    @property
    def rows_file(self) -> Path:
        return Path(self.folder) / "rows.npz"

    @property
    def conversations_file(self) -> Path:
        """The raw conversations, for the sides that compute features."""
        return Path(self.folder) / "conversations.parquet"

    @property
    def vocabularies_file(self) -> Path:
        """The vocabularies that those features count."""
        return Path(self.folder) / "vocabularies.json"

    @property
    def job_file(self) -> Path:
        """The conversations of the sides that run whole jobs."""
        return Path(self.folder) / "job.parquet"

    @property
    def member_file(self) -> Path:
        """The settings of their Llama member."""
        return Path(self.folder) / "member.json"

    def rows(self) -> Rows:
        return Rows.load(self.rows_file)

    def shape(self) -> Shape:
        return Shape.of(json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8")))

    def save(self) -> None:
        (Path(self.folder) / "task.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> Task:
        return cls(**json.loads((Path(folder) / "task.json").read_text(encoding="utf-8")))
