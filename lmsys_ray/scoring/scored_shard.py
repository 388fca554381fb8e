"""What a worker reports of a shard that it has scored."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from lmsys_ray.engine.usage import Usage


@dataclass(frozen=True)
class ScoredShard:
    """One shard that a pass has written."""

    member: str
    shard: int
    rows: int
    """Rows scored, without those that ingest rejected."""
    tokens: int
    reasons: list[str]
    """A reason for each row that could not be scored."""
    node: str
    """The id of the node whose actor wrote it."""
    replica: str
    """The actor, by Ray's id."""
    seconds: float
    """How long its model computed, without reading, encoding and writing."""
    usage: Usage
    """Tokens and slots of its micro-batches."""
    facts: dict[str, Any]
    """What the manifest records of the model as it was loaded."""
    notes: list[str]
    """Sentences about the model as it was loaded that the user should read once."""

    def as_table(self) -> pa.Table:
        """Returns a table of one row, which `of_row` reads."""
        values = {**vars(self), "usage": asdict(self.usage), "facts": json.dumps(self.facts)}
        lists = {name: pa.array([values.pop(name)], pa.list_(pa.string())) for name in ("reasons", "notes")}
        return pa.table({name: [value] for name, value in values.items()} | lists)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "ScoredShard":
        """Returns what `as_table` was made from."""
        return cls(**{**row, "usage": Usage(**row["usage"]), "facts": json.loads(row["facts"])})
