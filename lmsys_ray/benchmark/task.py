"""The folder that the sides of a benchmark share: a checkpoint, the rows, and how to score them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lmsys_ray.benchmark.shape import Shape
from lmsys_ray.engine.ragged import RaggedIds


@dataclass(frozen=True)
class BenchmarkTask:
    """What all sides need to know."""

    folder: str
    max_length: int
    batch_tokens: int
    """Slots of a micro-batch of the packed sides."""
    batch_rows: int
    """Rows of a batch of the plain sides."""
    threads: int
    clock: str
    """One of `side_process.CLOCKS`."""
    columns: list[int]
    """The columns of the head that hold a, b and tie."""
    checked: int
    """How many of the first rows are compared with fp32."""
    long_prompts: int = 0
    """From how many rows of the input, all with long prompts, the rows of the reward sides were chosen."""

    @property
    def checkpoint(self) -> Path:
        """A transformers directory: a 3-label classifier, any adapter merged, and its tokenizer."""
        return Path(self.folder) / "checkpoint"

    @property
    def rows_file(self) -> Path:
        """Where the rows lie that every side scores."""
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
        """The settings of their classifier."""
        return Path(self.folder) / "member.json"

    @property
    def reward_file(self) -> Path:
        """The sequences of the reward sides: those of all rows with response A, then those with B."""
        return Path(self.folder) / "reward.npz"

    @property
    def encoder(self) -> Path:
        """A transformers directory: the classifier of the encoder sides."""
        return Path(self.folder) / "encoder"

    @property
    def encoder_file(self) -> Path:
        """The encoded rows of the encoder sides."""
        return Path(self.folder) / "encoder.parquet"

    def rows(self) -> RaggedIds:
        """Returns the rows that every side scores."""
        return RaggedIds.load(self.rows_file)

    def shape(self) -> Shape:
        """Returns the sizes of the model."""
        return Shape.of(json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8")))

    def save(self) -> None:
        """Writes the task for a side's process."""
        (Path(self.folder) / "task.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> BenchmarkTask:
        """Returns the task that `save` wrote into a folder."""
        return cls(**json.loads((Path(folder) / "task.json").read_text(encoding="utf-8")))
