"""What the pipeline asks of an ensemble member, whatever its kind."""

from typing import Protocol

import numpy as np
import pyarrow as pa

from lmsys_ray.members.usage import Usage

CONVERSATIONS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("prompt", pa.large_string(), nullable=False),
        pa.field("response_a", pa.large_string(), nullable=False),
        pa.field("response_b", pa.large_string(), nullable=False),
    ]
)
"""The columns that a member receives: the row's number in the run and the three cells as they stood in the input."""


class Encoder(Protocol):
    """The half of a member that runs on CPU workers, ahead of the device."""

    def encode(self, conversations: pa.Table) -> pa.Table:
        """Turns a table with the columns of `CONVERSATIONS` into one that `Scorer.score` takes, rows in the same order.

        A column `tokens` (int64), where present, counts the real tokens of each row.
        """
        ...


class Scorer(Protocol):
    """The half of a member that holds the model."""

    usage: Usage
    """What was computed since this was last set to an empty one."""
    notes: list[str]
    """What the user should know of how this member computes; each is shown once for all its replicas."""

    def score(self, encoded: pa.Table) -> np.ndarray:
        """Returns float32 probabilities [rows, 3] in the order of `lmsys_ray.CLASSES`, a row for each of `encoded`."""
        ...
